// What the scripts share. A script's only argument is JSON:
//   api      the URL under which /{runId}/stream lies
//   runId    the run
//   parts    which parts to ask for; none for what every release takes
//   headers  of every request
//   cuts     after how many bytes to cut each connection, in order; the ones
//            after them are left alone
// It answers with JSON on standard output.

import * as ai from 'ai';
import * as ai5 from 'ai-5-strict';
import * as ai6 from 'ai-6-strict';
import * as ai7reset from 'ai-7-reset';
import * as ai7 from 'ai-7-strict';

/** The releases that read, and which parts each takes. */
export const releases = {
  '7': { module: ai, takes: ['ai5', 'ai6', 'ai7'] },
  '7 reset': { module: ai7reset, takes: ['ai5', 'ai6', 'ai7'] },
  '7 strict': { module: ai7, takes: ['ai5', 'ai6'] },
  '6 strict': { module: ai6, takes: ['ai5', 'ai6'] },
  '5 strict': { module: ai5, takes: ['ai5'] },
};

export const input = JSON.parse(process.argv[2]);

export const answer = (value) => process.stdout.write(JSON.stringify(value));

/** The transport options that make reconnectToStream ask for the parts. */
export const reconnection = input.parts && {
  prepareReconnectToStreamRequest: ({ id }) => ({
    api: `${input.api}/${encodeURIComponent(id)}/stream?parts=${input.parts}`,
  }),
};

/**
 * A fetch that cuts connections and notes the requests. Where a body breaks, by
 * a cut or by the server, the reader gets the error that browsers give.
 */
export class CuttingFetch {
  requests = [];
  #cuts = [...(input.cuts ?? [])];

  fetch = async (url, init = {}) => {
    const headers = new Headers(init.headers);
    for (const [name, value] of Object.entries(input.headers ?? {})) headers.set(name, value);
    const connection = new AbortController();
    init.signal?.addEventListener('abort', () => connection.abort());
    const response = await fetch(url, { ...init, headers, signal: connection.signal });
    this.requests.push({
      url: String(url),
      lastEventId: headers.get('last-event-id') ?? '',
      status: response.status,
    });
    if (response.status !== 200) return response;
    return new Response(cutAfter(this.#cuts.shift() ?? Infinity, response.body.getReader(), connection), response);
  };
}

function cutAfter(limit, reader, connection) {
  const broken = () => new TypeError('network error');
  let left = limit;
  return new ReadableStream(
    {
      async pull(controller) {
        // An error drops what is still queued, so a cut waits for the next pull.
        if (left === 0) {
          connection.abort();
          return controller.error(broken());
        }
        try {
          const { done, value } = await reader.read();
          if (done) return controller.close();
          const bytes = value.subarray(0, left);
          left -= bytes.length;
          controller.enqueue(bytes);
        } catch {
          controller.error(broken());
        }
      },
      cancel: () => connection.abort(),
    },
    { highWaterMark: 0 },
  );
}

/**
 * A fetch whose body goes on after a break, from the last event that was whole.
 * It stands below the transport, because an error that passes through the
 * transport takes parts with it that were received and not yet shown.
 */
export function resuming(fetch) {
  return async (url, init = {}) => {
    const first = await fetch(url, init);
    if (first.status !== 200) return first;
    let reader = first.body.getReader();
    let decoder = new TextDecoder();
    let text = '';
    let lastEventId = '';

    const reconnect = async () => {
      const headers = new Headers(init.headers);
      if (lastEventId) headers.set('last-event-id', lastEventId);
      const response = await fetch(url, { ...init, headers });
      if (response.status !== 200) throw new Error(`the stream cannot be resumed: ${response.status}`);
      reader = response.body.getReader();
      decoder = new TextDecoder();
      text = '';
    };

    const body = new ReadableStream({
      async pull(controller) {
        try {
          const { done, value } = await reader.read();
          if (done) return controller.close();
          text += decoder.decode(value, { stream: true });
        } catch {
          return reconnect();
        }
        const end = text.lastIndexOf('\n\n') + 2;
        if (end < 2) return;
        const whole = text.slice(0, end);
        text = text.slice(end);
        lastEventId = [...whole.matchAll(/^id: (\d+)$/gm)].at(-1)?.[1] ?? lastEventId;
        controller.enqueue(new TextEncoder().encode(whole));
      },
      cancel: (reason) => reader.cancel(reason),
    });
    return new Response(body, first);
  };
}
