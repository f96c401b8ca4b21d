// What sluicebox.c asks of its host, one function for each of the world `stage`. Not for stages.
//
// In a Wasm build they are the imports of the component, in a native one sluicebox_test.c. What
// they give is in memory of the call (sb_alloc). Meanings and limits: ../../wit/*.wit.

#ifndef SLUICEBOX_HOST_H
#define SLUICEBOX_HOST_H

#include "sluicebox.h"

void host_emit(sb_bytes frame);
bool host_get(uint32_t event, sb_bytes slot, sb_bytes *value);
bool host_put(uint32_t event, sb_bytes slot, sb_bytes value, sb_bytes *refusal);
bool host_delete(uint32_t event, sb_bytes slot);
bool host_add(uint32_t event, sb_bytes slot, int64_t delta, int64_t *sum, sb_bytes *refusal);
size_t host_scan(uint32_t event, sb_bytes prefix, uint32_t limit, sb_entry **entries);
sb_bytes host_batch(sb_bytes operations);
bool host_set_timer(uint32_t event, sb_bytes name, sb_clock clock, uint64_t at, sb_bytes *refusal);
bool host_cancel_timer(uint32_t event, sb_bytes name);
uint64_t host_watermark(void);
uint64_t host_now(void);
bool host_config(sb_bytes name, sb_bytes *value);
size_t host_config_names(sb_bytes **names);
bool host_asset_size(sb_bytes name, uint64_t *size);
sb_bytes host_asset(sb_bytes name, uint64_t offset, uint32_t len);
void host_log(sb_level level, sb_bytes line);
void host_count(sb_bytes name, uint64_t delta);
void host_gauge(sb_bytes name, double value);

// One event that failed.
typedef struct sb_failed {
    uint32_t event;
    bool retry;
    uint8_t *message;
    size_t len;
} sb_failed;

// Handles one frame, which is memory of the call. The failures are there until sb_end_call.
size_t sb_handle(sb_bytes frame, const sb_failed **failures);
// Takes back all memory of the call.
void sb_end_call(void);

#endif
