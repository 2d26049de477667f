-- Notes of operators: on a machine, and on the resource that stands for it, or that stands for none.
ALTER TABLE machines ADD COLUMN note TEXT; -- {"by": …, "text": …, "at": ms}
ALTER TABLE resources ADD COLUMN note TEXT;

PRAGMA user_version = 13;
