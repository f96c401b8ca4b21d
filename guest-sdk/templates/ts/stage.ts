// Greets each key, and says how often it has come.

import { stage } from "sluicebox";

interface Greeting {
  greeting: string;
  count: number;
}

export default stage((event) => {
  const greeting: Greeting = { greeting: "hello", count: event.state.add("count") };
  event.emitJson(greeting);
});
