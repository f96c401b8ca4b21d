// The SDK for C: from the frame of a call to the stage's function and back. See sluicebox.h.
//
// - Memory of a call is cut from blocks and taken back as a whole: behind each event where the
//   stage takes them one by one, else behind the call. The frame lies there too, and events point
//   into it.
// - What is emitted is packed into one buffer, and given to the host when the next event would
//   make it larger than a frame a stage is given, or when the call ends.
// - An event that breaks a limit of the frame is not emitted; its cause fails instead.
//
// What the host is, is in sluicebox_wasm.c and sluicebox_test.c. The format: ../../wit/FRAME.md.

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sluicebox_host.h"

enum {
    HEADER = 16,
    HEAD = 32,
    FIELD_HEAD = 4,
    OPERATION = 16,
    REPLY = 8,
    KEY_MAX = 512,
    FIELDS_MAX = 16384,
    FIELD_MAX = 65535,
    PAYLOAD_MAX = 15 << 20,
    FLUSH = 240 << 10,
    BLOCK = 64 << 10,
    BLOCK_KEPT = 1 << 20,
};

static const uint64_t TIME_END = (uint64_t)1 << 53;

enum { GET = 1, PUT = 2, DELETE = 3, ADD = 4, SET_TIMER = 5, CANCEL_TIMER = 6 };

// The target is little-endian, as the contract is; so is every machine that tests run on.
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little-endian");

static uint64_t number(const uint8_t *at, size_t len) {
    uint64_t value = 0;
    memcpy(&value, at, len);
    return value;
}

static void set_number(uint8_t *at, uint64_t value, size_t len) { memcpy(at, &value, len); }

static void copy(uint8_t *to, sb_bytes from) {
    if (from.len > 0) memcpy(to, from.at, from.len);
}

// ---- Memory of the call ----

typedef struct block {
    struct block *below;
    size_t room, used;
    uint64_t memory[];
} block;

static block *top;

// Memory that cannot be had ends the instance.
static void *had(void *memory) {
    if (memory == NULL) __builtin_trap();
    return memory;
}

static void push_block(size_t len) {
    size_t room = top == NULL ? BLOCK : top->room * 2;
    if (room > BLOCK_KEPT) room = BLOCK_KEPT;
    if (room < len) room = len;
    block *next = had(malloc(sizeof *next + room));
    *next = (block){.below = top, .room = room};
    top = next;
}

void *sb_alloc(size_t len) {
    if (len > SIZE_MAX / 2) __builtin_trap();
    len = (len + 7) & ~(size_t)7;
    if (top == NULL || top->room - top->used < len) push_block(len);
    void *at = (uint8_t *)top->memory + top->used;
    top->used += len;
    return at;
}

static void rewind_to(block *kept, size_t used) {
    while (top != kept) {
        block *below = top->below;
        free(top);
        top = below;
    }
    if (top != NULL) top->used = used;
}

// Keeps the newest block, which is the largest, unless one large thing made it so.
static void clear_memory(void) {
    block *kept = top;
    if (kept == NULL) return;
    top = kept->below;
    rewind_to(NULL, 0);
    if (kept->room > BLOCK_KEPT) {
        free(kept);
        return;
    }
    *kept = (block){.room = kept->room};
    top = kept;
}

// Makes room for `len` bytes behind those that something in memory of the call has.
static uint8_t *extend(uint8_t **at, size_t *used, size_t *room, size_t len) {
    if (*room - *used < len) {
        size_t wanted = *used + len, doubled = *room * 2;
        *room = doubled > wanted ? doubled : wanted;
        uint8_t *larger = sb_alloc(*room);
        copy(larger, (sb_bytes){*at, *used});
        *at = larger;
    }
    uint8_t *place = *at + *used;
    *used += len;
    return place;
}

sb_bytes sb_str(const char *text) {
    return (sb_bytes){(const uint8_t *)text, text == NULL ? 0 : strlen(text)};
}

char *sb_text(sb_bytes bytes) {
    char *text = sb_alloc(bytes.len + 1);
    copy((uint8_t *)text, bytes);
    text[bytes.len] = 0;
    return text;
}

static sb_bytes format_all(const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (len < 0) sb_panic("a text cannot be put together");
    char *text = sb_alloc((size_t)len + 1);
    vsnprintf(text, (size_t)len + 1, format, arguments);
    return (sb_bytes){(uint8_t *)text, (size_t)len};
}

sb_bytes sb_format(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    sb_bytes text = format_all(format, arguments);
    va_end(arguments);
    return text;
}

bool sb_equal(sb_bytes a, sb_bytes b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

// ---- Events ----

// The event that begins at `at`. The host has checked the frame.
static sb_event event_at(const uint8_t *at, uint32_t index) {
    size_t key = number(at + 10, 2), payload = number(at + 24, 4);
    return (sb_event){
        .index = index,
        .kind = (sb_kind)at[4],
        .input = (uint16_t)number(at + 6, 2),
        .port = (uint16_t)number(at + 8, 2),
        .time = number(at + 16, 8),
        .key = {at + HEAD, key},
        .payload = {at + HEAD + key, payload},
        .fields = {at + HEAD + key + payload, number(at + 28, 4)},
    };
}

bool sb_field(const sb_event *event, uint16_t id, sb_bytes *value) {
    const uint8_t *at = event->fields.at;
    size_t left = event->fields.len;
    while (left >= FIELD_HEAD) {
        size_t len = number(at + 2, 2);
        if (number(at, 2) == id) {
            *value = (sb_bytes){at + FIELD_HEAD, len};
            return true;
        }
        at += FIELD_HEAD + len;
        left -= FIELD_HEAD + len;
    }
    return false;
}

// ---- Failures: kept beyond an event's memory, until the call has ended ----

static sb_failed *failures;
static size_t failures_count, failures_room;

void sb_fail(const sb_event *event, bool retry, sb_bytes message) {
    for (size_t i = 0; i < failures_count; i++) {
        if (failures[i].event == event->index) return;
    }
    if (failures_count == failures_room) {
        failures_room = failures_room == 0 ? 8 : failures_room * 2;
        failures = had(realloc(failures, failures_room * sizeof *failures));
    }
    uint8_t *kept = had(malloc(message.len + 1));
    copy(kept, message);
    failures[failures_count++] = (sb_failed){event->index, retry, kept, message.len};
}

void sb_reject(const sb_event *event, const char *message) {
    sb_fail(event, false, sb_str(message));
}

void sb_retry(const sb_event *event, const char *message) {
    sb_fail(event, true, sb_str(message));
}

void sb_panic(const char *message) {
    host_log(SB_ERROR, sb_str(message));
    __builtin_trap();
}

// ---- Emitting ----

static struct {
    uint8_t *at;
    size_t len, room;
    uint32_t count;
} output;

static void flush(void) {
    if (output.count == 0) return;
    memcpy(output.at, "SBXF\1\0\1\0", 8);
    set_number(output.at + 8, output.count, 4);
    set_number(output.at + 12, output.len, 4);
    host_emit((sb_bytes){output.at, output.len});
    output.count = 0;
    output.len = HEADER;
    if (output.room > FLUSH) {
        // It grew for one large event; the next one like it may never come.
        free(output.at);
        output.at = NULL;
        output.room = 0;
    }
}

static uint8_t *reserve(size_t size) {
    if (output.len + size > FLUSH) flush();
    if (output.len < HEADER) output.len = HEADER;
    size_t wanted = output.len + size;
    if (wanted > output.room) {
        size_t doubled = output.room < 2048 ? 4096 : output.room * 2;
        if (doubled > FLUSH) doubled = FLUSH;
        output.room = doubled > wanted ? doubled : wanted;
        output.at = had(realloc(output.at, output.room));
    }
    uint8_t *at = output.at + output.len;
    output.len = wanted;
    output.count++;
    return at;
}

// What of an event no frame can carry; NULL if one can.
static const char *excess(const sb_draft *draft) {
    if (draft->key.len > KEY_MAX) return "emitted a key that is longer than 512 bytes";
    if (draft->fields.len > FIELDS_MAX) return "emitted more than 16,384 bytes of fields";
    if (draft->payload.len > PAYLOAD_MAX) return "emitted a payload that is larger than 15 MiB";
    if (draft->time >= TIME_END) return "emitted a time that is not below 2^53 microseconds";
    return NULL;
}

void sb_send(const sb_event *event, sb_draft draft) {
    const char *wrong = excess(&draft);
    if (wrong != NULL) {
        sb_reject(event, wrong);
        return;
    }
    size_t size = HEAD + draft.key.len + draft.payload.len + draft.fields.len;
    uint8_t *at = reserve(size);
    set_number(at, size, 4);
    set_number(at + 4, 0, 4);
    set_number(at + 8, draft.port, 2);
    set_number(at + 10, draft.key.len, 2);
    set_number(at + 12, event->index, 4);
    set_number(at + 16, draft.time == 0 ? event->time : draft.time, 8);
    set_number(at + 24, draft.payload.len, 4);
    set_number(at + 28, draft.fields.len, 4);
    copy(at + HEAD, draft.key);
    copy(at + HEAD + draft.key.len, draft.payload);
    copy(at + HEAD + draft.key.len + draft.payload.len, draft.fields);
}

void sb_emit(const sb_event *event, sb_bytes payload) {
    sb_send(event, (sb_draft){.payload = payload});
}

void sb_emit_text(const sb_event *event, const char *payload) { sb_emit(event, sb_str(payload)); }

void sb_emitf(const sb_event *event, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    sb_emit(event, format_all(format, arguments));
    va_end(arguments);
}

bool sb_add_field(sb_draft *draft, uint16_t id, sb_bytes value) {
    if (value.len > FIELD_MAX) return false;
    uint8_t *at = (uint8_t *)draft->fields.at;
    size_t used = draft->fields.len, room = used;
    uint8_t *place = extend(&at, &used, &room, FIELD_HEAD + value.len);
    set_number(place, id, 2);
    set_number(place + 2, value.len, 2);
    copy(place + FIELD_HEAD, value);
    draft->fields = (sb_bytes){at, used};
    return true;
}

// ---- State and timers ----

static sb_bytes refusal;

sb_bytes sb_refusal(void) { return refusal; }

bool sb_get(const sb_event *event, const char *slot, sb_bytes *value) {
    return host_get(event->index, sb_str(slot), value);
}

bool sb_put(const sb_event *event, const char *slot, sb_bytes value) {
    return host_put(event->index, sb_str(slot), value, &refusal);
}

bool sb_delete(const sb_event *event, const char *slot) {
    return host_delete(event->index, sb_str(slot));
}

bool sb_add(const sb_event *event, const char *slot, int64_t delta, int64_t *sum) {
    int64_t ignored;
    return host_add(event->index, sb_str(slot), delta, sum == NULL ? &ignored : sum, &refusal);
}

size_t sb_scan(const sb_event *event, const char *prefix, uint32_t limit, sb_entry **entries) {
    return host_scan(event->index, sb_str(prefix), limit, entries);
}

bool sb_set_timer(const sb_event *event, const char *name, sb_clock clock, uint64_t at) {
    return host_set_timer(event->index, sb_str(name), clock, at, &refusal);
}

bool sb_cancel_timer(const sb_event *event, const char *name) {
    return host_cancel_timer(event->index, sb_str(name));
}

bool sb_is_timer(const sb_event *event, const char *name) {
    return event->kind == SB_TIMER && sb_equal(event->payload, sb_str(name));
}

uint64_t sb_watermark(void) { return host_watermark(); }

uint64_t sb_now(void) { return host_now(); }

// Adds an operation; gives the place of its value.
static uint8_t *operation(sb_batch *batch, uint8_t what, const sb_event *event, const char *name,
                          size_t len) {
    sb_bytes slot = sb_str(name);
    if (slot.len > 64) sb_panic("the name of a slot or timer has at most 64 bytes");
    if (len > UINT32_MAX - OPERATION) sb_panic("a value is too large");
    size_t size = OPERATION + slot.len + len;
    uint8_t *at = extend(&batch->at, &batch->len, &batch->room, size);
    set_number(at, what, 1);
    set_number(at + 1, slot.len, 1);
    set_number(at + 2, 0, 2);
    set_number(at + 4, event->index, 4);
    set_number(at + 8, len, 4);
    set_number(at + 12, 0, 4);
    copy(at + OPERATION, slot);
    return at + OPERATION + slot.len;
}

void sb_batch_get(sb_batch *batch, const sb_event *event, const char *slot) {
    operation(batch, GET, event, slot, 0);
}

void sb_batch_put(sb_batch *batch, const sb_event *event, const char *slot, sb_bytes value) {
    copy(operation(batch, PUT, event, slot, value.len), value);
}

void sb_batch_delete(sb_batch *batch, const sb_event *event, const char *slot) {
    operation(batch, DELETE, event, slot, 0);
}

void sb_batch_add(sb_batch *batch, const sb_event *event, const char *slot, int64_t delta) {
    set_number(operation(batch, ADD, event, slot, 8), (uint64_t)delta, 8);
}

void sb_batch_set_timer(sb_batch *batch, const sb_event *event, const char *name, sb_clock clock,
                        uint64_t at) {
    uint8_t *value = operation(batch, SET_TIMER, event, name, 9);
    set_number(value, clock, 1);
    set_number(value + 1, at, 8);
}

void sb_batch_cancel_timer(sb_batch *batch, const sb_event *event, const char *name) {
    operation(batch, CANCEL_TIMER, event, name, 0);
}

void sb_batch_run(sb_batch *batch) {
    batch->replies = (sb_bytes){0};
    if (batch->len > 0) batch->replies = host_batch((sb_bytes){batch->at, batch->len});
    batch->len = 0;
}

sb_reply sb_batch_next(sb_batch *batch) {
    sb_bytes *rest = &batch->replies;
    if (rest->len < REPLY) sb_panic("the batch has no more replies; was it run?");
    size_t len = number(rest->at + 4, 4);
    sb_reply reply = {(sb_status)rest->at[0], {rest->at + REPLY, len}, 0};
    if (reply.status == SB_DONE && len == 8) reply.number = (int64_t)number(reply.value.at, 8);
    rest->at += REPLY + len;
    rest->len -= REPLY + len;
    return reply;
}

// ---- The rest ----

bool sb_config(const char *name, sb_bytes *value) { return host_config(sb_str(name), value); }

size_t sb_config_names(sb_bytes **names) { return host_config_names(names); }

bool sb_asset_size(const char *name, uint64_t *size) {
    return host_asset_size(sb_str(name), size);
}

sb_bytes sb_asset(const char *name, uint64_t offset, uint32_t len) {
    return host_asset(sb_str(name), offset, len);
}

void sb_log(sb_level level, sb_bytes line) { host_log(level, line); }

void sb_logf(sb_level level, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    host_log(level, format_all(format, arguments));
    va_end(arguments);
}

void sb_count(const char *metric, uint64_t delta) { host_count(sb_str(metric), delta); }

void sb_gauge(const char *metric, double value) { host_gauge(sb_str(metric), value); }

// ---- A call ----

static void handle_each(sb_bytes frame, uint32_t count) {
    block *kept = top;
    size_t used = top == NULL ? 0 : top->used;
    const uint8_t *at = frame.at + HEADER;
    for (uint32_t index = 0; index < count; index++) {
        sb_event event = event_at(at, index);
        sb_the_stage.each(&event);
        rewind_to(kept, used);
        at += number(at, 4);
    }
}

static void handle_all(sb_bytes frame, uint32_t count) {
    sb_event *events = sb_alloc(count * sizeof *events);
    const uint8_t *at = frame.at + HEADER;
    for (uint32_t index = 0; index < count; index++) {
        events[index] = event_at(at, index);
        at += number(at, 4);
    }
    sb_the_stage.all(events, count);
}

size_t sb_handle(sb_bytes frame, const sb_failed **failed) {
    uint32_t count = (uint32_t)number(frame.at + 8, 4);
    if (sb_the_stage.each != NULL) {
        handle_each(frame, count);
    } else {
        handle_all(frame, count);
    }
    flush();
    *failed = failures;
    return failures_count;
}

void sb_end_call(void) {
    for (size_t i = 0; i < failures_count; i++) free(failures[i].message);
    failures_count = 0;
    clear_memory();
}
