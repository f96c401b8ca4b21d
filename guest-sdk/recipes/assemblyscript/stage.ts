// Emits each text in capitals, and how many its key had.

import { Event, Kind, run } from "./sluicebox";

export { handle, cabi_realloc, cabi_post_handle } from "./sluicebox";

run((event: Event): void => {
  if (event.kind != Kind.DATA) return;
  const seen = event.add("seen", 1);
  event.emit(event.text.toUpperCase() + " " + seen.toString());
});
