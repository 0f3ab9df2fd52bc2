-- additive: a program that does not know it tells nothing of money; what it moves is told by those that do.
-- What of money was told to others, once.

CREATE TABLE alerts (
    tenant text NOT NULL,
    subject text NOT NULL,
    line text NOT NULL,
    bound bigint NOT NULL,
    told_ms bigint NOT NULL,
    PRIMARY KEY (tenant, subject, line, bound)
);

CREATE INDEX alerts_by_time ON alerts (tenant, told_ms);
