// For the benches: counts each word of an event's payload in the state of its key, and emits the
// new count of each as 8 bytes; one call of the host for all of a call.

#include <string.h>

#include "sluicebox.h"

static void words(const sb_event *events, size_t count) {
    sb_batch batch = {0};
    size_t *found = sb_alloc(count * sizeof *found);
    for (size_t i = 0; i < count; i++) {
        char *rest, *text = sb_text(events[i].payload);
        found[i] = 0;
        for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
            sb_batch_add(&batch, &events[i], word, 1);
            found[i]++;
        }
    }
    sb_batch_run(&batch);
    for (size_t i = 0; i < count; i++) {
        for (size_t word = 0; word < found[i]; word++) {
            sb_emit(&events[i], sb_batch_next(&batch).value);
        }
    }
}

SB_STAGE_ALL(words);
