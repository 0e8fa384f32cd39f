-- +goose Up

-- What a person fills in who answers a question that a tool has in the middle of a
-- call. It stands here and not in the log: it is the person's, and the call's output
-- tells what came of it.
ALTER TABLE approvals ADD COLUMN decision_content json;

-- +goose Down
ALTER TABLE approvals DROP COLUMN decision_content;
