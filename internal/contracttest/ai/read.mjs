// Reads the streams of runIds with the transport of each release, whose own
// schema must take every part, and assembles each message with its own reader.
// With cuts, every release's connections are cut, each release by the whole
// list, and a fetch that resumes hides that from the transport.
import * as ai from 'ai';
import * as ai5 from 'ai-5-strict';
import * as ai6 from 'ai-6-strict';
import * as ai7 from 'ai-7-strict';
import { answer, CuttingFetch, input, resuming } from './lib.mjs';

const releases = { '7': ai, '7 strict': ai7, '6 strict': ai6, '5 strict': ai5 };

async function read(runId, release, { DefaultChatTransport, readUIMessageStream }) {
  const cutting = new CuttingFetch();
  const result = { runId, release, resumable: true, parts: [], errors: [], message: null, requests: cutting.requests };
  const transport = new DefaultChatTransport({
    api: input.api,
    fetch: input.cuts ? resuming(cutting.fetch) : cutting.fetch,
  });
  const stream = await transport.reconnectToStream({ chatId: runId });
  if (stream === null) return { ...result, resumable: false };
  const noted = stream.pipeThrough(
    new TransformStream({
      transform(part, controller) {
        result.parts.push(part);
        controller.enqueue(part);
      },
    }),
  );
  const messages = readUIMessageStream({
    stream: noted,
    onError: (error) => result.errors.push(String(error?.message ?? error)),
  });
  for await (const message of messages) result.message = message;
  return result;
}

const readings = input.runIds.flatMap((runId) =>
  Object.entries(releases).map(([release, module]) => read(runId, release, module)),
);
answer(await Promise.all(readings));
