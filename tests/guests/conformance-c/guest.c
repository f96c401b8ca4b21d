// The conformance guest in C, over the SDK (guest-sdk/c); what it does: ../CONFORMANCE.md.

#include <stdlib.h>
#include <string.h>

#include "sluicebox.h"

enum { OWN_FIELD = 40000, SCAN_LIMIT = 100 };

// Bytes that are put together piece by piece, in memory of the call.
typedef struct {
    uint8_t *at;
    size_t len;
} builder;

static void append(builder *to, const void *from, size_t len) {
    uint8_t *larger = sb_alloc(to->len + len);
    if (to->len > 0) memcpy(larger, to->at, to->len);
    if (len > 0) memcpy(larger + to->len, from, len);
    *to = (builder){larger, to->len + len};
}

static void append_number(builder *to, uint64_t value, size_t len) { append(to, &value, len); }

static void append_bytes(builder *to, sb_bytes bytes) { append(to, bytes.at, bytes.len); }

static void emit(const sb_event *event, builder payload) {
    sb_emit(event, (sb_bytes){payload.at, payload.len});
}

// One byte of status, then bytes.
static void answer(const sb_event *event, uint8_t status, sb_bytes value) {
    builder payload = {0};
    append_number(&payload, status, 1);
    append_bytes(&payload, value);
    emit(event, payload);
}

static void answer_done(const sb_event *event, bool done) {
    answer(event, done ? 0 : 2, done ? (sb_bytes){0} : sb_refusal());
}

static void reject_unknown(const sb_event *event) { sb_reject(event, "unknown command"); }

static sb_bytes after(sb_bytes bytes, size_t len) {
    return (sb_bytes){bytes.at + len, bytes.len - len};
}

// Splits an operand into one byte of length, so many bytes, and the rest.
static bool split(sb_bytes operand, sb_bytes *head, sb_bytes *rest) {
    if (operand.len == 0 || operand.len - 1 < operand.at[0]) return false;
    *head = (sb_bytes){operand.at + 1, operand.at[0]};
    *rest = after(operand, 1 + head->len);
    return true;
}

static void describe(const sb_event *event) {
    builder payload = {0};
    append_number(&payload, event->kind, 1);
    append_number(&payload, event->input, 2);
    append_number(&payload, event->time, 8);
    append_bytes(&payload, event->key);
    emit(event, payload);
}

static void emit_fields(const sb_event *event, sb_bytes value) {
    sb_draft draft = {0};
    sb_bytes type;
    sb_add_field(&draft, OWN_FIELD, value);
    if (sb_field(event, SB_CONTENT_TYPE, &type)) sb_add_field(&draft, SB_CONTENT_TYPE, type);
    sb_send(event, draft);
}

static void add(const sb_event *event, sb_bytes slot, sb_bytes operand) {
    int64_t delta, sum;
    memcpy(&delta, operand.at, sizeof delta);
    if (!sb_add(event, sb_text(slot), delta, &sum)) {
        answer(event, 2, sb_refusal());
        return;
    }
    answer(event, 0, (sb_bytes){(const uint8_t *)&sum, sizeof sum});
}

static void scan(const sb_event *event, const char *prefix) {
    sb_entry *entries;
    size_t count = sb_scan(event, prefix, SCAN_LIMIT, &entries);
    builder payload = {0};
    for (size_t i = 0; i < count; i++) {
        append_number(&payload, entries[i].slot.len, 1);
        append_bytes(&payload, entries[i].slot);
        append_number(&payload, entries[i].value.len, 4);
        append_bytes(&payload, entries[i].value);
    }
    emit(event, payload);
}

static void read_asset(const sb_event *event, const char *name) {
    uint64_t size;
    if (!sb_asset_size(name, &size)) return;
    builder payload = {0};
    append_number(&payload, size, 8);
    append_bytes(&payload, sb_asset(name, 0, 16));
    emit(event, payload);
}

// What the command `M` was given in the life of the instance.
static uint8_t *remembered;
static uint32_t remembered_len;

static void remember(const sb_event *event, sb_bytes operand) {
    remembered = realloc(remembered, remembered_len + operand.len + 1);
    if (remembered == NULL) sb_panic("no memory");
    if (operand.len > 0) memcpy(remembered + remembered_len, operand.at, operand.len);
    remembered_len += operand.len;
    uint32_t sum = 0;
    for (size_t i = 0; i < remembered_len; i++) sum += remembered[i];
    builder payload = {0};
    append_number(&payload, remembered_len, 4);
    append_number(&payload, sum, 4);
    emit(event, payload);
}

static void emit_number(const sb_event *event, uint64_t number) {
    sb_emit(event, (sb_bytes){(const uint8_t *)&number, sizeof number});
}

// Commands whose operand is free. False if it is not one of them.
static bool run_plain(const sb_event *event, uint8_t command, sb_bytes operand) {
    sb_bytes value = {0};
    bool found;
    switch (command) {
    case 'e': sb_emit(event, operand); return true;
    case 'd': describe(event); return true;
    case 'f': emit_fields(event, operand); return true;
    case 'r': sb_fail(event, true, operand); return true;
    case 'x': sb_fail(event, false, operand); return true;
    case 't': __builtin_trap();
    case 'g':
        found = sb_get(event, sb_text(operand), &value);
        answer(event, found, value);
        return true;
    case 'D': answer(event, sb_delete(event, sb_text(operand)), value); return true;
    case 'S': scan(event, sb_text(operand)); return true;
    case 'c':
        found = sb_config(sb_text(operand), &value);
        answer(event, found, value);
        return true;
    case 'A': read_asset(event, sb_text(operand)); return true;
    case 'm': sb_count(sb_text(operand), 1); return true;
    case 'M': remember(event, operand); return true;
    case 'C': answer(event, sb_cancel_timer(event, sb_text(operand)), value); return true;
    case 'W': emit_number(event, sb_watermark()); return true;
    case 'w': emit_number(event, sb_now() * 1000); return true;
    default: return false;
    }
}

static void emit_many(const sb_event *event, unsigned count) {
    for (unsigned value = 0; value < count; value++) {
        uint8_t byte = (uint8_t)value;
        sb_emit(event, (sb_bytes){&byte, 1});
    }
}

// Commands whose operand begins with numbers.
static bool run_numbered(const sb_event *event, uint8_t command, sb_bytes operand) {
    sb_event cause = *event;
    uint64_t time;
    switch (command) {
    case 'n':
        if (operand.len < 1) return false;
        emit_many(event, operand.at[0]);
        return true;
    case 'p':
        if (operand.len < 1) return false;
        sb_send(event, (sb_draft){.port = operand.at[0], .payload = after(operand, 1)});
        return true;
    case 'u':
        if (operand.len < sizeof cause.index) return false;
        memcpy(&cause.index, operand.at, sizeof cause.index);
        sb_emit(&cause, after(operand, sizeof cause.index));
        return true;
    case 'l':
        if (operand.len < 1 || operand.at[0] > SB_ERROR) return false;
        sb_log((sb_level)operand.at[0], after(operand, 1));
        return true;
    case 'T':
        if (operand.len < 9 || operand.at[0] > SB_WALL) return false;
        memcpy(&time, operand.at + 1, sizeof time);
        answer_done(event, sb_set_timer(event, sb_text(after(operand, 9)),
                                        (sb_clock)operand.at[0], time));
        return true;
    default: return false;
    }
}

// Commands whose operand begins with a length.
static bool run_split(const sb_event *event, uint8_t command, sb_bytes operand) {
    sb_bytes head, rest;
    if (!split(operand, &head, &rest)) return false;
    switch (command) {
    case 'k': sb_send(event, (sb_draft){.key = head, .payload = rest}); return true;
    case 's': answer_done(event, sb_put(event, sb_text(head), rest)); return true;
    case 'a':
        if (rest.len != sizeof(int64_t)) return false;
        add(event, head, rest);
        return true;
    default: return false;
    }
}

static void run(const sb_event *event) {
    if (event->kind != SB_DATA) {
        describe(event);
        return;
    }
    if (event->payload.len > 0) {
        uint8_t command = event->payload.at[0];
        sb_bytes operand = after(event->payload, 1);
        if (run_plain(event, command, operand)) return;
        if (run_numbered(event, command, operand)) return;
        if (run_split(event, command, operand)) return;
    }
    reject_unknown(event);
}

SB_STAGE(run);
