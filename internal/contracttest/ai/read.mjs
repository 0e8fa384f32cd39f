// Reads the streams of runIds with the transport of each release, whose own
// schema must take every part, and assembles each message with its own reader.
// With cuts, every release's connections are cut, each release by the whole
// list, and a fetch that resumes hides that from the transport. With parts, the
// releases that take those read.
import * as ai from 'ai';
import * as ai5 from 'ai-5-strict';
import * as ai6 from 'ai-6-strict';
import * as ai7 from 'ai-7-strict';
import * as ai7reset from 'ai-7-reset';
import { answer, CuttingFetch, input, reconnection, resuming } from './lib.mjs';

const releases = {
  '7': { module: ai, takes: ['ai5', 'ai6', 'ai7'] },
  '7 reset': { module: ai7reset, takes: ['ai5', 'ai6', 'ai7'] },
  '7 strict': { module: ai7, takes: ['ai5', 'ai6'] },
  '6 strict': { module: ai6, takes: ['ai5', 'ai6'] },
  '5 strict': { module: ai5, takes: ['ai5'] },
};

async function read(runId, release, { DefaultChatTransport, readUIMessageStream }) {
  const cutting = new CuttingFetch();
  const result = { runId, release, resumable: true, parts: [], errors: [], message: null, requests: cutting.requests };
  const transport = new DefaultChatTransport({
    api: input.api,
    fetch: input.cuts ? resuming(cutting.fetch) : cutting.fetch,
    ...reconnection,
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
  Object.entries(releases)
    .filter(([, { takes }]) => takes.includes(input.parts ?? 'ai5'))
    .map(([release, { module }]) => read(runId, release, module)),
);
answer(await Promise.all(readings));
