// Greets each key, and says how often it has come.

#include "sluicebox.h"

static void greet(const sb_event *event) {
    int64_t count;
    if (!sb_add(event, "count", 1, &count)) {
        sb_fail(event, false, sb_refusal());
        return;
    }
    sb_emitf(event, "{\"greeting\": \"hello\", \"count\": %lld}", (long long)count);
}

SB_STAGE(greet);
