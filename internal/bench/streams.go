package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// streamed is one delta after another: from the call that appends it to its
// first byte at an HTTP client that follows the run at url.
func streamed(name string, writer *process, url string) cell {
	return cell{name: name, measure: func(ctx context.Context, d time.Duration) (_ result, err error) {
		ctx, cancel := context.WithCancel(telemetry.WithTrace(ctx, telemetry.NewTrace("", "", "")))
		defer cancel()
		r, err := newRun(ctx, writer)
		if err != nil {
			return result{}, err
		}
		blocks, err := follow(ctx, url, r.RunID)
		if err != nil {
			return result{}, err
		}
		unit := runlog.Unit{
			RunKey: r.RunKey, RunID: r.RunID, Trace: telemetry.TraceFrom(ctx),
			Decide: runlog.Append(event.MessageDeltaV1{PartID: "text-1", Delta: deltaText}),
		}
		appended := func() (time.Duration, error) {
			begun := time.Now()
			failed := make(chan error, 1)
			go func() {
				if _, err := writer.log.Commit(ctx, unit); err != nil {
					failed <- err
				}
			}()
			select {
			case b, open := <-blocks:
				if !open {
					return 0, errors.New("the stream broke")
				}
				return b.Sub(begun), nil
			case err := <-failed:
				return 0, err
			}
		}
		// The first block is the run's first event; the second appended one
		// finds the reader at the log's end.
		if _, open := <-blocks; !open {
			return result{}, errors.New("the stream broke at once")
		}
		if _, err := appended(); err != nil {
			return result{}, err
		}
		var took []time.Duration
		begun := time.Now()
		for time.Since(begun) < d {
			t, err := appended()
			if err != nil {
				return result{}, err
			}
			took = append(took, t)
		}
		return summary(took, time.Since(begun), 1), nil
	}}
}

// follow reads a run's stream and tells when each event's first byte came. The
// channel is closed when the stream ends.
func follow(ctx context.Context, url, runID string) (<-chan time.Time, error) {
	req, err := signed(ctx, http.MethodGet, url, "/internal/v1/runs/"+runID+"/stream", runID, nil)
	if err != nil {
		return nil, err
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("the stream was answered %d", res.StatusCode), res.Body.Close())
	}
	blocks := make(chan time.Time, 16)
	go func() {
		defer res.Body.Close()
		defer close(blocks)
		for in := bufio.NewReader(res.Body); ; {
			block, at, err := readBlock(in)
			if err != nil {
				return
			}
			if bytes.Contains(block, []byte("id:")) { // and no comment
				blocks <- at
			}
		}
	}()
	return blocks, nil
}

// readBlock reads up to an empty line and tells when its first byte was there.
func readBlock(in *bufio.Reader) (block []byte, at time.Time, err error) {
	if _, err := in.Peek(1); err != nil {
		return nil, at, err
	}
	at = time.Now()
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil, at, err
		}
		block = append(block, line...)
		if len(line) == 1 {
			return block, at, nil
		}
	}
}
