// Greets each key, and says how often it has come.

import { stage } from "sluicebox";

export default stage((event) => {
  event.emitJson({ greeting: "hello", count: event.state.add("count") });
});
