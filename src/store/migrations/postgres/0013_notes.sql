-- Notes of operators: on a machine, and on the resource that stands for it, or that stands for none.
ALTER TABLE machines ADD COLUMN note text; -- {"by": …, "text": …, "at": ms}
ALTER TABLE resources ADD COLUMN note text;
