/**
 * What each code of an error means, where it comes from and what to do: the source of `docs/errors.md` and of
 * `GET /errors/{code}`, which the errors of the service name in `doc_url`.
 *
 * **Details**
 *
 * The keys are the codes of OpenAI's dialect, which has the most. An error without a code there has the code
 * `invalid_request`.
 */

/** The explanation of a code. */
export interface Entry {
  /** One sentence: what happened. */
  readonly meaning: string
  /** What leads to it. */
  readonly cause: string
  /** What the caller or the operator does. */
  readonly remedy: string
  /** Its statuses where it is not that of a `Reason`: of a request that does not reach a model. */
  readonly statuses?: ReadonlyArray<number>
}

/** Errors of requests, which each dialect has with a status of its own. */
const requests = {
  invalid_request: {
    meaning: "The request is wrong, or wrong for the model.",
    cause:
      "A field is missing, unknown, of the wrong type or out of its range; the body is not JSON in UTF-8; or no deployment of the model has a capability that the request needs, as embeddings, images or tools.",
    remedy:
      "Change what the message says. `param` is the path of the field; an unknown field names the one that was meant. `GET /v1/models` lists what each model can do."
  },
  not_supported: {
    meaning: "The deployment cannot do what the request needs.",
    cause:
      "The engine or the provider found it out when it was asked, or the endpoint needs something that is not configured.",
    remedy: "Leave out the field in `param`, or use a model with the capability: `GET /v1/models` lists what each has."
  },
  context_length_exceeded: {
    meaning: "The prompt does not fit into the context window.",
    cause: "Prompt and answer together have more tokens than the model or its deployment has room for.",
    remedy:
      "Shorten the messages, lower `max_tokens`, raise `contextSize` of a local deployment, or add a fallback with a larger window."
  },
  content_policy_violation: {
    meaning: "The content is not allowed.",
    cause: "A rule of the service's input policy rejects the prompt, or the provider refuses the content.",
    remedy:
      "Change the content. The operator finds the rule in the decision record and in `guard` of the configuration."
  },
  invalid_api_key: {
    meaning: "The request has no valid key of this service.",
    cause: "The key is missing, unknown, expired or revoked.",
    remedy:
      "Send the key as `Authorization: Bearer KEY` or `x-api-key: KEY`. The operator makes one with `troupe keys create`."
  },
  forbidden: {
    meaning: "The key does not allow this.",
    cause: "The endpoint needs an admin key, or the caller is not on this machine.",
    remedy: "Use an admin key, or ask the operator. `docs/security.md` says who may call what."
  },
  model_not_found: {
    meaning: "There is no such model for this key.",
    cause: "The name is misspelt, the model is not configured, or the key may not use it (403).",
    remedy: "Use a name of `GET /v1/models`. The operator adds models to `troupe.yaml`, and models to a key."
  },
  queue_full: {
    meaning: "The queue of the deployment is full.",
    cause: "More requests wait than its `queueLimit` allows.",
    remedy: "Retry after `retry-after`. The operator adds slots, replicas or a fallback, or raises the limit."
  },
  overloaded: {
    meaning: "The service takes no more requests now.",
    cause: "Memory is short, too many requests or bodies are open, or the store of budgets cannot be read (503).",
    remedy: "Retry after `retry-after`. The operator looks at `/health/details` and at the log."
  },
  rate_limit_exceeded: {
    meaning: "A limit of requests or tokens is reached.",
    cause: "A limit of this service, named in the message, or that of the provider on all of its keys.",
    remedy: "Retry after `retry-after`. A request that is larger than the limit itself never fits: make it smaller."
  },
  insufficient_quota: {
    meaning: "There is no money or quota left for the request.",
    cause: "A budget of this service has no room for it, or the account at the provider is used up.",
    remedy:
      "Wait for the next period, lower `max_tokens`, or ask the operator to raise the budget. Retrying does not help."
  },
  upstream_authentication_failed: {
    meaning: "The provider does not accept the operator's key.",
    cause: "The key of the deployment is wrong, revoked, or lacks a permission.",
    remedy: "The operator sets a valid key in the environment variable that the configuration names, and reloads."
  },
  upstream_failed: {
    meaning: "The provider failed.",
    cause: "An error status, no connection, or an answer that breaks off, is empty or is not of its dialect.",
    remedy:
      "Retry. The operator adds a second deployment or `fallbacks`, and looks at the attempts of the decision record."
  },
  upstream_overloaded: {
    meaning: "The provider is overloaded.",
    cause: "It answered with the status 529.",
    remedy: "Retry after `retry-after`. The operator adds a deployment at another provider."
  },
  upstream_timeout: {
    meaning: "A time limit of the deployment has passed.",
    cause:
      "The phase in the message took longer than its limit in `timeouts`: queue, load, connect, first byte, first token, stall or total.",
    remedy: "Retry. The operator raises the limit of that phase, or adds a deployment that is faster."
  },
  circuit_open: {
    meaning: "The deployment is not called after failures.",
    cause: "It failed several times one after another; its circuit is open until a probe succeeds.",
    remedy: "Retry after `retry-after`. The operator finds the failures in `troupe ps` and in the log."
  },
  no_deployment: {
    meaning: "No deployment of the model can take the request.",
    cause: "Each is excluded; the message says why.",
    remedy: "Retry after `retry-after` if there is one. The operator reads the decision record: `troupe decisions ID`."
  },
  deployment_down: {
    meaning: "The engine of the deployment does not start.",
    cause: "It crashed, and its restarts failed.",
    remedy:
      "Retry after `retry-after`. The operator reads the log, and looks at the memory of the machine and at the model file."
  },
  insufficient_memory: {
    meaning: "The model does not fit into memory.",
    cause: "Its file and context need more than what is free, even without the models that can be unloaded.",
    remedy: "The operator uses a smaller quantization (`variants`), a smaller `contextSize`, or another machine."
  },
  engine_hung: {
    meaning: "The engine made no progress and was stopped.",
    cause: "It gave no sign of life for the time in the message.",
    remedy: "Retry: the engine starts again. If it happens again, the operator reads the log."
  },
  engine_crashed: {
    meaning: "The engine ended while it answered.",
    cause: "A fault in a native library, or the system ended the process for lack of memory.",
    remedy: "Retry: the engine starts again. If it happens again, the operator reads the log."
  },
  engine_stopped: {
    meaning: "The engine was stopped while it answered or loaded.",
    cause: "An operator unloaded or replaced the model.",
    remedy: "Retry."
  },
  model_load_failed: {
    meaning: "The model could not be loaded.",
    cause: "The file is missing, damaged or of a kind that the engine does not read.",
    remedy: "The operator checks the file with `troupe models` and loads it again."
  },
  engine_missing: {
    meaning: "The package of the engine is not installed.",
    cause: "`node-llama-cpp` or `onnxruntime-node` was left out of the installation.",
    remedy: "The operator installs the package that the message names."
  },
  engine_failed: {
    meaning: "The engine could not complete this request.",
    cause: "The native library reported an error; the message has it.",
    remedy: "Change the request, or report the message if the request is right."
  },
  input_policy_failed: {
    meaning: "The input policy could not check the request or the answer.",
    cause: "A hook or the webhook of `guard` failed or took too long.",
    remedy: "Retry. The operator looks at the webhook."
  },
  shutting_down: {
    meaning: "The service is shutting down.",
    cause: "An operator stops or replaces it.",
    remedy: "Retry after `retry-after`: another process answers."
  }
} satisfies Readonly<Record<string, Entry>>

/** Errors of the HTTP interface, before a request reaches a model. */
const http = {
  invalid_target: {
    statuses: [400],
    meaning: "The path or the query of the URL is malformed.",
    cause: "A wrong percent-encoding, or a target that is no path.",
    remedy: "Encode the URL."
  },
  not_found: {
    statuses: [404],
    meaning: "There is no such path.",
    cause: "The path is misspelt, or the base URL of the client lacks `/v1` or has it twice.",
    remedy: "Use a path of `GET /openapi.json`; the message names the nearest one."
  },
  method_not_allowed: {
    statuses: [405],
    meaning: "The path has no such method.",
    cause: "Most endpoints of models take `POST`. The port of the models answers only `GET` requests of `/admin`.",
    remedy: "Use a method of the header `allow`; for changes of `/admin`, the admin socket or port."
  },
  request_timeout: {
    statuses: [408],
    meaning: "The body did not arrive in time.",
    cause: "It paused for longer than `server.bodyTimeout`.",
    remedy: "Send it again. For slow networks, the operator raises the limit."
  },
  request_too_large: {
    statuses: [413],
    meaning: "The body is too large.",
    cause: "It has more bytes than `server.maxBodyBytes`.",
    remedy: "Send less, or ask the operator to raise the limit."
  },
  expectation_failed: {
    statuses: [417],
    meaning: "The header `expect` is not supported.",
    cause: "It is not `100-continue`.",
    remedy: "Leave it out."
  },
  origin_not_allowed: {
    statuses: [403],
    meaning: "Web pages of this origin may not call the service.",
    cause: "The header `origin` is none of `server.cors.origins`.",
    remedy: "The operator adds the origin."
  },
  host_not_allowed: {
    statuses: [403],
    meaning: "The header `host` names another host.",
    cause: "A web page calls a local service by a name that is not of this machine.",
    remedy: "Use `localhost`, or the operator adds the origin of the page to `server.cors.origins`."
  },
  upgrade_required: {
    statuses: [426],
    meaning: "The path is a WebSocket.",
    cause: "A plain request came to it.",
    remedy: "Open a WebSocket, or use `POST`."
  },
  upgrade_not_supported: {
    statuses: [400],
    meaning: "The connection cannot be upgraded.",
    cause: "The path has no WebSocket, or an earlier request of the connection is not answered yet.",
    remedy: "Use `GET /v1/responses` on a connection of its own."
  },
  invalid_message: {
    statuses: [400],
    meaning: "A message of a WebSocket is no request.",
    cause: "It is no JSON object with a known `type`, or it is not text.",
    remedy: "Send `{\"type\": \"response.create\", ...}`."
  },
  internal_error: {
    statuses: [500],
    meaning: "Troupe has a defect.",
    cause: "Its log has the cause under the id of the request.",
    remedy: "Retry, and report it with the entry of the log."
  }
} satisfies Readonly<Record<string, Entry>>

/** Errors of stored responses and of administration. */
const administration = {
  previous_response_not_found: {
    statuses: [400],
    meaning: "There is no response to continue.",
    cause: "It has expired (`responses.ttl`), was deleted, was not stored, or belongs to another tenant.",
    remedy: "Send the whole conversation in `input`."
  },
  storage_failed: {
    statuses: [503],
    meaning: "The store cannot be read or written.",
    cause: "The database or Redis is not reachable, or the disk is full.",
    remedy: "Retry. The operator looks at `/health/ready` and the log."
  },
  unauthorized: {
    statuses: [401],
    meaning: "Administration needs its token.",
    cause: "`server.admin.token` is set and the request has another one or none.",
    remedy: "Send `Authorization: Bearer TOKEN`; `troupe` commands read `TROUPE_ADMIN_TOKEN`."
  },
  deployment_not_found: {
    statuses: [404],
    meaning: "There is no such deployment.",
    cause: "The id is misspelt, or a reload removed it.",
    remedy: "Use an id of `troupe ps`, such as `chat#0`; in a URL, `chat%230`."
  },
  decision_not_found: {
    statuses: [404],
    meaning: "There is no such decision record.",
    cause: "Only the newest are kept, and a restart removes them.",
    remedy: "Use an id of `GET /admin/decisions`."
  },
  body_not_kept: {
    statuses: [409],
    meaning: "The body of this request is not kept.",
    cause: "`decisions.keepBodies` is not set, newer requests have taken its place, or the service has restarted.",
    remedy: "Set `decisions.keepBodies`, restart, and send the request again; then it can be replayed."
  },
  key_exists: {
    statuses: [409],
    meaning: "A key with this name exists.",
    cause: "Names of keys are unique.",
    remedy: "Choose another name, or rotate the key."
  },
  key_not_found: {
    statuses: [404],
    meaning: "There is no such key.",
    cause: "The name or id is misspelt.",
    remedy: "Use a name of `troupe keys list`."
  },
  key_declared: {
    statuses: [409],
    meaning: "The key is declared in the configuration.",
    cause: "Commands change only keys of the database.",
    remedy: "Change it in `troupe.yaml`, and run `troupe reload`."
  },
  key_name: {
    statuses: [400],
    meaning: "A key cannot have this name.",
    cause: "It has a slash, is `.` or `..`, or looks like an id.",
    remedy: "Choose another name."
  },
  key_revoked: {
    statuses: [409],
    meaning: "The key is revoked.",
    cause: "A revoked key does not come back.",
    remedy: "Create another one."
  },
  key_expired: {
    statuses: [409],
    meaning: "The key has expired.",
    cause: "A new secret of an expired key would not be accepted.",
    remedy: "Give it a later end first: `troupe keys extend`."
  },
  rollout_not_found: {
    statuses: [404],
    meaning: "There is no such rollout.",
    cause: "The id is misspelt, or the model never had one.",
    remedy: "Use an id of `troupe rollout list`."
  },
  rollout_running: {
    statuses: [409],
    meaning: "The model has a rollout that runs.",
    cause: "A model has one rollout at a time.",
    remedy: "Promote or abort it first."
  },
  rollout_refused: {
    statuses: [409],
    meaning: "The rollout cannot change like this.",
    cause: "It has ended, or is in the wanted state.",
    remedy: "Read `troupe rollout status`."
  },
  deployment_in_use: {
    statuses: [409],
    meaning: "The deployment takes part in another rollout or test.",
    cause: "A deployment is in one comparison at a time.",
    remedy: "End the other one first."
  },
  invalid_configuration: {
    statuses: [400],
    meaning: "The configuration is invalid; nothing has changed.",
    cause: "The file has the problems that the message lists.",
    remedy: "Mend them, check with `troupe config check`, and reload again."
  },
  reload_failed: {
    statuses: [503],
    meaning: "The reload did not complete; the configuration before it stays.",
    cause: "A process did not answer, or what the configuration names could not be used.",
    remedy: "Read the message and the log, and reload again."
  }
} satisfies Readonly<Record<string, Entry>>

/** The code of errors that have none in OpenAI's dialect. */
export const withoutCode = "invalid_request"

/** All codes. */
export const entries: Readonly<Record<string, Entry>> = { ...requests, ...http, ...administration }

/** The parts of the catalog, in the order of `docs/errors.md`. */
export const parts: ReadonlyArray<readonly [title: string, entries: Readonly<Record<string, Entry>>]> = [
  ["Requests", requests],
  ["HTTP", http],
  ["Stored responses and administration", administration]
]

/** The explanation of a code, at the service: `/errors/queue_full`. */
export const pathOf = (code: string): string => `/errors/${code}`

/** The explanation as text. */
export const format = (code: string, { cause, meaning, remedy }: Entry): string =>
  `${code}: ${meaning}\n\nCause: ${cause}\nRemedy: ${remedy}\n`
