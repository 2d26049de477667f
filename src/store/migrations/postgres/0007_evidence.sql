-- Blame by evidence: what the uses of a resource say of it, and the base rate of its pool.
ALTER TABLE resources ADD COLUMN evidence text; -- {"recent": uses, "halvings": …, "run": {…}, "confirmed": {…}}
ALTER TABLE pools ADD COLUMN record text; -- {"ever": {"good": …, "bad": …, "confirmed": …}, "recent": uses, "halvings": …}
