// What a stage says about an event it could not handle.
//
// Whatever a handler throws is the failure of its event. `Retry` asks the host to try the event
// again; everything else rejects it, as trying again helps only if the author says so. A thrown
// `Trap` ends the call instead.

/** Why an event could not be handled. Nothing emitted or written for it stands. */
export class Failure extends Error {
  name = "Failure";
  kind = "reject";
}

/** The cause may pass: the host tries the event again, alone, as the manifest says. */
export class Retry extends Failure {
  name = "Retry";
  kind = "retry";
}

/** Trying again cannot help. */
export class Reject extends Failure {
  name = "Reject";
}

/** Ends the call, and the instance with it. */
export class Trap extends Error {
  name = "Trap";
}

/** Class and message of what was thrown. */
export function describe(error) {
  if (error instanceof Failure) return { kind: error.kind, message: error.message };
  if (typeof error === "string") return { kind: "reject", message: error };
  if (!(error instanceof Error)) return { kind: "reject", message: String(error) };
  return {
    kind: error.kind === "retry" ? "retry" : "reject",
    message: `${error.name}: ${error.message}`,
  };
}
