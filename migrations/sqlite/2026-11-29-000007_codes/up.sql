-- Why an operation failed, as a word; and the image of the store that an image is imported from. Words are not checked
-- here: a newer release may know more of them.

ALTER TABLE operations ADD COLUMN code TEXT;
ALTER TABLE images ADD COLUMN import_stored TEXT;
