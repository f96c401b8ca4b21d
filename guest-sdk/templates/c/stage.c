// Greets each key, and says how often it has come.
//
// Arguments are ours to free. What is in the result is on the heap, and freed by the bindings.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stage_typed.h"

// Adds one to the count of the event's key. Ends the instance if the state refuses.
static int64_t counted(uint32_t index) {
    stage_typed_string_t slot, error;
    stage_typed_string_set(&slot, "count");
    int64_t count = 0;
    if (!sluicebox_stage_state_add(index, &slot, 1, &count, &error)) abort();
    return count;
}

// What one event comes to.
static void greet(uint32_t index, const sluicebox_stage_types_event_t *event,
                  sluicebox_stage_types_event_t *output) {
    char text[96];
    int length = snprintf(text, sizeof text, "{\"greeting\": \"hello\", \"count\": %lld}",
                          (long long)counted(index));
    memset(output, 0, sizeof *output);
    output->cause = index;
    output->time = event->time;
    output->payload.ptr = malloc((size_t)length);
    if (output->payload.ptr == NULL) abort();
    memcpy(output->payload.ptr, text, (size_t)length);
    output->payload.len = (size_t)length;
}

void exports_stage_typed_handle(stage_typed_list_event_t *events, stage_typed_outcome_t *result) {
    memset(result, 0, sizeof *result);
    result->outputs.ptr = calloc(events->len, sizeof *result->outputs.ptr);
    if (result->outputs.ptr == NULL && events->len > 0) abort();
    for (size_t i = 0; i < events->len; i++) {
        if (events->ptr[i].kind != SLUICEBOX_STAGE_TYPES_KIND_DATA) continue;
        greet((uint32_t)i, &events->ptr[i], &result->outputs.ptr[result->outputs.len++]);
    }
    stage_typed_list_event_free(events);
}
