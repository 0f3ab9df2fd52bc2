-- additive: a program that does not know it tells nothing of money; what it moves is told by those that do.
-- What of money was told to others, once.

CREATE TABLE alerts (
    tenant TEXT NOT NULL,
    subject TEXT NOT NULL,
    line TEXT NOT NULL,
    bound INTEGER NOT NULL,
    told_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, subject, line, bound)
) STRICT, WITHOUT ROWID;

CREATE INDEX alerts_by_time ON alerts (tenant, told_ms);
