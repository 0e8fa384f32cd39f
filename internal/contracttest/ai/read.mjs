// Reads the streams of runIds with the transport of each release, whose own
// schema must take every part, and assembles each message with its own reader.
// With cuts, every release's connections are cut, each release by the whole
// list, and a fetch that resumes hides that from the transport. With parts, the
// releases that take those read.
import { answer, CuttingFetch, input, reconnection, releases, resuming } from './lib.mjs';

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
