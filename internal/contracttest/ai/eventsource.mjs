// Follows a run with an EventSource from ?cursor=0, over connections that are
// cut, until it is told to stop. It reconnects by itself.
import { EventSource } from 'eventsource';
import { answer, CuttingFetch, input } from './lib.mjs';

const cutting = new CuttingFetch();
const events = [];
const awake = setInterval(() => {}, 1000); // an EventSource that waits does not keep Node from exiting
const source = new EventSource(`${input.api}/${encodeURIComponent(input.runId)}/stream?cursor=0`, {
  fetch: cutting.fetch,
});
source.onmessage = ({ data, lastEventId }) => events.push({ data, lastEventId });
await new Promise((closed) => {
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) closed();
  };
});
clearInterval(awake);

answer({ events, requests: cutting.requests });
