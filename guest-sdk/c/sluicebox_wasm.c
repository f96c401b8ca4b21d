// The host of a component: the imports and exports of the world `stage` by the canonical ABI, so
// that a stage needs no generator of bindings.
//
// - What the host gives it puts where cabi_realloc says: memory of the call.
// - What the adapter of WASI keeps lies where cabi_realloc_adapter says: memory of the instance.
// - An option or result comes as its case, and then, from the next multiple of its alignment on,
//   its value. Texts and lists are an address and a length.

#ifdef __wasm__

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sluicebox_host.h"

#define IMPORT(interface, name)                                                                \
    __attribute__((import_module("sluicebox:stage/" interface "@0.1.0"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))

// An option of bytes, or a result whose error is a text.
typedef struct {
    uint8_t is;
    sb_bytes value;
} bytes_case;

typedef struct {
    uint8_t is;
    union {
        int64_t number;
        sb_bytes text;
    };
} number_case;

typedef struct {
    sb_bytes *at;
    size_t len;
} bytes_list;

typedef struct {
    sb_entry *at;
    size_t len;
} entry_list;

#define BYTES const uint8_t *, size_t

IMPORT("output", "emit") void import_emit(BYTES);
IMPORT("state", "get") void import_get(uint32_t, BYTES, bytes_case *);
IMPORT("state", "put") void import_put(uint32_t, BYTES, BYTES, bytes_case *);
IMPORT("state", "delete") int32_t import_delete(uint32_t, BYTES);
IMPORT("state", "add") void import_add(uint32_t, BYTES, int64_t, number_case *);
IMPORT("state", "scan") void import_scan(uint32_t, BYTES, uint32_t, entry_list *);
IMPORT("state", "batch") void import_batch(BYTES, sb_bytes *);
IMPORT("timers", "set") void import_set(uint32_t, BYTES, int32_t, uint64_t, bytes_case *);
IMPORT("timers", "cancel") int32_t import_cancel(uint32_t, BYTES);
IMPORT("timers", "watermark") uint64_t import_watermark(void);
IMPORT("config", "get") void import_config(BYTES, bytes_case *);
IMPORT("config", "names") void import_config_names(bytes_list *);
IMPORT("assets", "size") void import_asset_size(BYTES, number_case *);
IMPORT("assets", "read") void import_asset(BYTES, uint64_t, uint32_t, sb_bytes *);
IMPORT("log", "write") void import_log(int32_t, BYTES);
IMPORT("metrics", "count") void import_count(BYTES, uint64_t);
IMPORT("metrics", "gauge") void import_gauge(BYTES, double);

void host_emit(sb_bytes frame) { import_emit(frame.at, frame.len); }

bool host_get(uint32_t event, sb_bytes slot, sb_bytes *value) {
    bytes_case found;
    import_get(event, slot.at, slot.len, &found);
    if (found.is) *value = found.value;
    return found.is;
}

bool host_put(uint32_t event, sb_bytes slot, sb_bytes value, sb_bytes *refusal) {
    bytes_case error;
    import_put(event, slot.at, slot.len, value.at, value.len, &error);
    if (error.is) *refusal = error.value;
    return !error.is;
}

bool host_delete(uint32_t event, sb_bytes slot) { return import_delete(event, slot.at, slot.len); }

bool host_add(uint32_t event, sb_bytes slot, int64_t delta, int64_t *sum, sb_bytes *refusal) {
    number_case done;
    import_add(event, slot.at, slot.len, delta, &done);
    if (done.is) {
        *refusal = done.text;
    } else {
        *sum = done.number;
    }
    return !done.is;
}

size_t host_scan(uint32_t event, sb_bytes prefix, uint32_t limit, sb_entry **entries) {
    entry_list list;
    import_scan(event, prefix.at, prefix.len, limit, &list);
    *entries = list.at;
    return list.len;
}

sb_bytes host_batch(sb_bytes operations) {
    sb_bytes replies;
    import_batch(operations.at, operations.len, &replies);
    return replies;
}

bool host_set_timer(uint32_t event, sb_bytes name, sb_clock clock, uint64_t at,
                    sb_bytes *refusal) {
    bytes_case error;
    import_set(event, name.at, name.len, clock, at, &error);
    if (error.is) *refusal = error.value;
    return !error.is;
}

bool host_cancel_timer(uint32_t event, sb_bytes name) {
    return import_cancel(event, name.at, name.len);
}

uint64_t host_watermark(void) { return import_watermark(); }

uint64_t host_now(void) {
    struct timespec now = {0};
    timespec_get(&now, TIME_UTC);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

bool host_config(sb_bytes name, sb_bytes *value) {
    bytes_case found;
    import_config(name.at, name.len, &found);
    if (found.is) *value = found.value;
    return found.is;
}

size_t host_config_names(sb_bytes **names) {
    bytes_list list;
    import_config_names(&list);
    *names = list.at;
    return list.len;
}

bool host_asset_size(sb_bytes name, uint64_t *size) {
    number_case found;
    import_asset_size(name.at, name.len, &found);
    if (found.is) *size = (uint64_t)found.number;
    return found.is;
}

sb_bytes host_asset(sb_bytes name, uint64_t offset, uint32_t len) {
    sb_bytes bytes;
    import_asset(name.at, name.len, offset, len, &bytes);
    return bytes;
}

void host_log(sb_level level, sb_bytes line) { import_log(level, line.at, line.len); }

void host_count(sb_bytes name, uint64_t delta) { import_count(name.at, name.len, delta); }

void host_gauge(sb_bytes name, double value) { import_gauge(name.at, name.len, value); }

EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_len, size_t align, size_t len) {
    (void)align; // 8 at most, as everything in memory of the call has it
    void *at = sb_alloc(len);
    if (old_len > 0) memcpy(at, old, old_len < len ? old_len : len);
    return at;
}

// The adapter asks once, in whichever call first uses WASI, and has its stack there ever after.
EXPORT("cabi_realloc_adapter")
void *cabi_realloc_adapter(void *old, size_t old_len, size_t align, size_t len) {
    (void)old_len;
    (void)align; // 8 at most, as everything of malloc has it
    void *at = realloc(old, len);
    if (at == NULL) __builtin_trap();
    return at;
}

// One failure as the contract has it.
typedef struct {
    uint32_t event;
    uint8_t class;
    sb_bytes message;
} failure;

typedef struct {
    failure *at;
    size_t len;
} failure_list;

EXPORT("handle") failure_list *handle(const uint8_t *frame, size_t len) {
    static failure_list result;
    const sb_failed *failed;
    result.len = sb_handle((sb_bytes){frame, len}, &failed);
    result.at = sb_alloc(result.len * sizeof *result.at);
    for (size_t i = 0; i < result.len; i++) {
        uint8_t class = failed[i].retry ? 0 : 1;
        result.at[i] = (failure){failed[i].event, class, {failed[i].message, failed[i].len}};
    }
    return &result;
}

EXPORT("cabi_post_handle") void cabi_post_handle(failure_list *result) {
    (void)result;
    sb_end_call();
}

#endif
