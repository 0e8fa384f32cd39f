// Follows a run with a chat that answers what it is asked: it says to the chat and
// to the server at `answers` that a person approves, or not, each call, and what
// the calls that a client carries out come to. `release` names the chat's release;
// without it the newest that `parts` is made for.
import { answer, input, releases } from './lib.mjs';

const release = releases[input.release ?? (input.parts === 'ai6' ? '6 strict' : '7')].module;
const { AbstractChat, DefaultChatTransport } = release;

class Chat extends AbstractChat {}

class State {
  status = 'ready';
  error = undefined;
  #messages = [];
  get messages() {
    return this.#messages;
  }
  set messages(messages) {
    this.#messages = messages;
  }
  pushMessage = (message) => {
    this.#messages.push(message);
    look(message);
  };
  popMessage = () => this.#messages.pop();
  replaceMessage = (index, message) => {
    this.#messages[index] = message;
    look(message);
  };
  snapshot = (value) => structuredClone(value);
}

const post = (what, body) => fetch(`${input.answers}/${what}`, { method: 'POST', body: JSON.stringify(body) });
const answered = new Set();
const states = [];
const statesOf = {};
const work = [];
const called = [];
let sent = 0;

function look(message) {
  for (const part of message.parts) {
    // A release without a word for approvals is told of them in data.
    if (part.type === 'data-approval' && part.data.state === 'pending') ask(part.data.approvalId, false);
    if (part.type !== 'dynamic-tool') continue;
    if (states.at(-1) !== part.state) states.push(part.state);
    const own = (statesOf[part.toolName] ??= []);
    if (own.at(-1) !== part.state) own.push(part.state);
    if (part.state === 'approval-requested') ask(part.approval.id, true);
  }
}

function ask(approvalId, known) {
  if (answered.has(approvalId)) return;
  answered.add(approvalId);
  work.push(decide(approvalId, known));
}

/** Decides; the chat is told when it knows of approvals itself. */
async function decide(approvalId, known) {
  if (known) await chat.addToolApprovalResponse({ id: approvalId, approved: input.approved });
  await post('decision', { approvalId, approved: input.approved });
}

/** Carries a client tool out, when the test says what it comes to. */
async function bring({ toolCallId, toolName }) {
  const output = input.outputs?.[toolName];
  if (output === undefined) return;
  await post('result', { toolCallId, output });
  await chat.addToolOutput({ tool: toolName, toolCallId, output });
}

const state = new State();
const chat = new Chat({
  id: input.runId,
  state,
  transport: new DefaultChatTransport({
    api: input.api,
    prepareReconnectToStreamRequest: ({ id }) => ({ api: `${input.api}/${encodeURIComponent(id)}/stream?parts=${input.parts}` }),
    prepareSendMessagesRequest: () => {
      sent++;
      throw new Error('the chat sends by itself');
    },
  }),
  sendAutomaticallyWhen: (options) => release.lastAssistantMessageIsCompleteWithApprovalResponses?.(options) ?? false,
  onToolCall: ({ toolCall }) => {
    called.push(toolCall.toolName);
    work.push(bring(toolCall));
  },
});

await chat.resumeStream();
await Promise.all(work);

answer({ status: state.status, error: state.error?.message ?? '', messages: state.messages, states, statesOf, called, sent });
