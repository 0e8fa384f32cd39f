-- +goose Up

-- What a frame asked for in case it finds its run at work.
ALTER TABLE frames ADD COLUMN mode text NOT NULL DEFAULT 'enqueue'
    CONSTRAINT frames_mode_known CHECK (mode IN ('enqueue', 'steer', 'interrupt', 'reject'));

-- +goose Down
ALTER TABLE frames DROP COLUMN mode;
