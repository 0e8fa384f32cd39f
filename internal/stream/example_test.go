package stream_test

import (
	"fmt"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

func ExamplePart() {
	for _, row := range []db.RunLog{
		{Seq: 8, EventType: event.TypeMessageDelta, EventVersion: 1, Payload: []byte(`{"delta":"Hello","part_id":"text-1"}`)},
		{Seq: 9, EventType: event.TypeFrameFinished, EventVersion: 1, Payload: []byte(`{"frame_id":"frame-1","frame_seq":1}`)},
		{Seq: 10, EventType: event.TypeStreamClosed, EventVersion: 1, Payload: []byte(`{}`)},
	} {
		block, err := stream.Part(row, stream.AI5)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(string(block))
	}
	// Output:
	// data: {"type":"text-delta","id":"text-1","delta":"Hello"}
	// id: 8
	//
	// id: 9
	//
	// data: [DONE]
	// id: 10
}
