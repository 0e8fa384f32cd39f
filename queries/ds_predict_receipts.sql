-- name: DsPredictReceiptInsert :exec
INSERT INTO ds_predict_receipts (receipt_id, run_key, run_id, call_id, signature_id, compiled_id, strategy_id,
                                 status, lease_epoch, receipt, receipt_hash)
VALUES (@receipt_id, @run_key, @run_id, @call_id, @signature_id, @compiled_id, @strategy_id,
        @status, @lease_epoch, @receipt, @receipt_hash);

-- name: DsPredictReceiptListOfRun :many
SELECT * FROM ds_predict_receipts WHERE run_key = @run_key ORDER BY inserted_at, receipt_id;
