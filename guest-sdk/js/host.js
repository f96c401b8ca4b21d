// The functions of the host, as the rest of the SDK calls them: always by `host`, as it is filled
// in by component.js in a component and by testing.js for the time of a test's call.

/** The host would not do what was asked of it, and says why. */
export class Refused extends Error {
  name = "Refused";
}

function absent() {
  throw new Error("there is no host here: run the stage in a Harness of sluicebox/testing");
}

const NAMES = [
  "emit",
  "stateGet",
  "statePut",
  "stateDelete",
  "stateScan",
  "stateBatch",
  "timerSet",
  "timerCancel",
  "watermark",
  "now",
  "configGet",
  "configNames",
  "assetSize",
  "assetRead",
  "log",
  "count",
  "gauge",
];

export const host = Object.fromEntries(NAMES.map((name) => [name, absent]));

/** Puts other functions in place of some; gives those that were there. */
export function replace(functions) {
  const before = { ...host };
  Object.assign(host, functions);
  return before;
}
