-- additive: a program that does not know it lets every key decide anything; limit keys when the last such one is gone.
-- What the holder of a key may approve: grants as JSON; '': anything.

ALTER TABLE api_keys ADD COLUMN may_approve text NOT NULL DEFAULT '';
