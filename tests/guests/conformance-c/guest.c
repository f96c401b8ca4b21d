// The conformance guest in C, for the world `stage-typed`; what it does: ../CONFORMANCE.md.
//
// Built by `cargo xtask guests`, which generates the bindings from wit/ first. It has no clock, so
// the command `w` emits nothing. Ownership as the bindings want it: arguments are ours to free, and
// everything in the result is on the heap and freed by the bindings afterwards.

#include <stdlib.h>
#include <string.h>

#include "stage_typed.h"

typedef sluicebox_stage_types_event_t event_t;
typedef sluicebox_stage_types_field_t field_t;
typedef stage_typed_string_t string_t;

enum { CONTENT_TYPE = 258, OWN_FIELD = 40000, SCAN_LIMIT = 100 };

// Bytes within something else. Never freed.
typedef struct {
    uint8_t *at;
    size_t len;
} view_t;

// Bytes on the heap that grow.
typedef struct {
    uint8_t *at;
    size_t len, room;
} bytes_t;

// What one call has come to so far, and the event that is being handled.
typedef struct {
    stage_typed_outcome_t *result;
    size_t outputs_room, failures_room;
    uint32_t index;
    const event_t *event;
} call_t;

// Memory that cannot be had ends the instance; so does the command `t`.
static _Noreturn void trap(void) { __builtin_trap(); }

static void *grow(void *old, size_t *room, size_t wanted, size_t size) {
    if (wanted <= *room) return old;
    size_t doubled = *room < 8 ? 8 : *room * 2;
    *room = doubled < wanted ? wanted : doubled;
    void *new = realloc(old, *room * size);
    if (new == NULL) trap();
    return new;
}

static void append(bytes_t *bytes, const void *from, size_t len) {
    if (len == 0) return;
    bytes->at = grow(bytes->at, &bytes->room, bytes->len + len, 1);
    memcpy(bytes->at + bytes->len, from, len);
    bytes->len += len;
}

// The target is little-endian, as the contract is, so a number's bytes are the low bytes in memory.
static void append_number(bytes_t *bytes, uint64_t value, size_t len) {
    append(bytes, &value, len);
}

static view_t after(view_t view, size_t len) { return (view_t){view.at + len, view.len - len}; }

static string_t text(view_t view) { return (string_t){view.at, view.len}; }

// Adds an event that carries `payload`, which it takes over, with everything else as usual.
static event_t *emit(call_t *call, bytes_t payload) {
    sluicebox_stage_types_list_event_t *outputs = &call->result->outputs;
    outputs->ptr = grow(outputs->ptr, &call->outputs_room, outputs->len + 1, sizeof(event_t));
    event_t *event = &outputs->ptr[outputs->len++];
    memset(event, 0, sizeof *event);
    event->cause = call->index;
    event->time = call->event->time;
    event->payload = (stage_typed_list_u8_t){payload.at, payload.len};
    return event;
}

static event_t *emit_view(call_t *call, view_t payload) {
    bytes_t copy = {0};
    append(&copy, payload.at, payload.len);
    return emit(call, copy);
}

static void fail(call_t *call, sluicebox_stage_types_failure_class_t class, view_t message) {
    sluicebox_stage_types_list_failure_t *failures = &call->result->failures;
    failures->ptr = grow(failures->ptr, &call->failures_room, failures->len + 1,
                         sizeof(sluicebox_stage_types_failure_t));
    sluicebox_stage_types_failure_t *failure = &failures->ptr[failures->len++];
    failure->event = call->index;
    failure->class_ = class;
    stage_typed_string_dup_n(&failure->message, (const char *)message.at, message.len);
}

static void reject_unknown(call_t *call) {
    static uint8_t message[] = "unknown command";
    fail(call, SLUICEBOX_STAGE_TYPES_FAILURE_CLASS_REJECT, (view_t){message, sizeof message - 1});
}

// Splits an operand into one byte of length, so many bytes, and the rest.
static bool split(view_t operand, view_t *head, view_t *rest) {
    if (operand.len == 0 || operand.len - 1 < operand.at[0]) return false;
    *head = (view_t){operand.at + 1, operand.at[0]};
    *rest = after(operand, 1 + head->len);
    return true;
}

static void describe(call_t *call) {
    const event_t *event = call->event;
    bytes_t payload = {0};
    append_number(&payload, event->kind, 1);
    append_number(&payload, event->input, 2);
    append_number(&payload, event->time, 8);
    append(&payload, event->key.ptr, event->key.len);
    emit(call, payload);
}

static void emit_many(call_t *call, uint8_t count) {
    for (unsigned value = 0; value < count; value++) {
        bytes_t payload = {0};
        append_number(&payload, value, 1);
        emit(call, payload);
    }
}

static field_t field_of(uint16_t id, view_t value) {
    bytes_t copy = {0};
    append(&copy, value.at, value.len);
    return (field_t){id, {copy.at, copy.len}};
}

static void emit_fields(call_t *call, view_t value) {
    field_t *fields = malloc(2 * sizeof(field_t));
    if (fields == NULL) trap();
    size_t count = 0;
    fields[count++] = field_of(OWN_FIELD, value);
    for (size_t i = 0; i < call->event->fields.len && count == 1; i++) {
        const field_t *field = &call->event->fields.ptr[i];
        if (field->id != CONTENT_TYPE) continue;
        fields[count++] = field_of(CONTENT_TYPE, (view_t){field->value.ptr, field->value.len});
    }
    event_t *event = emit_view(call, (view_t){0});
    event->fields = (sluicebox_stage_types_list_field_t){fields, count};
}

static void emit_keyed(call_t *call, view_t key, view_t payload) {
    event_t *event = emit_view(call, payload);
    stage_typed_string_dup_n(&event->key, (const char *)key.at, key.len);
}

// One byte of status, then what a function of the host gave, which is freed.
static void emit_answer(call_t *call, uint8_t status, void *value, size_t len) {
    bytes_t payload = {0};
    append_number(&payload, status, 1);
    append(&payload, value, len);
    if (len > 0) free(value);
    emit(call, payload);
}

static void get(call_t *call, view_t slot_view) {
    string_t slot = text(slot_view);
    stage_typed_list_u8_t value = {0};
    bool found = sluicebox_stage_state_get(call->index, &slot, &value);
    emit_answer(call, found, value.ptr, found ? value.len : 0);
}

static void put(call_t *call, view_t slot_view, view_t value_view) {
    string_t slot = text(slot_view), error = {0};
    stage_typed_list_u8_t value = {value_view.at, value_view.len};
    bool done = sluicebox_stage_state_put(call->index, &slot, &value, &error);
    emit_answer(call, done ? 0 : 2, error.ptr, done ? 0 : error.len);
}

static void add(call_t *call, view_t slot_view, view_t delta_view) {
    string_t slot = text(slot_view), error = {0};
    int64_t delta = 0, value = 0;
    memcpy(&delta, delta_view.at, sizeof delta);
    if (!sluicebox_stage_state_add(call->index, &slot, delta, &value, &error)) {
        emit_answer(call, 2, error.ptr, error.len);
        return;
    }
    bytes_t payload = {0};
    append_number(&payload, 0, 1);
    append(&payload, &value, sizeof value);
    emit(call, payload);
}

static void delete(call_t *call, view_t slot_view) {
    string_t slot = text(slot_view);
    emit_answer(call, sluicebox_stage_state_delete(call->index, &slot), NULL, 0);
}

static void scan(call_t *call, view_t prefix_view) {
    string_t prefix = text(prefix_view);
    sluicebox_stage_state_list_entry_t entries = {0};
    sluicebox_stage_state_scan(call->index, &prefix, SCAN_LIMIT, &entries);
    bytes_t payload = {0};
    for (size_t i = 0; i < entries.len; i++) {
        const sluicebox_stage_state_entry_t *entry = &entries.ptr[i];
        append_number(&payload, entry->slot.len, 1);
        append(&payload, entry->slot.ptr, entry->slot.len);
        append_number(&payload, entry->value.len, 4);
        append(&payload, entry->value.ptr, entry->value.len);
    }
    sluicebox_stage_state_list_entry_free(&entries);
    emit(call, payload);
}

static void read_config(call_t *call, view_t name_view) {
    string_t name = text(name_view), value = {0};
    bool found = sluicebox_stage_config_get(&name, &value);
    emit_answer(call, found, value.ptr, found ? value.len : 0);
}

static void read_asset(call_t *call, view_t name_view) {
    string_t name = text(name_view);
    uint64_t size = 0;
    if (!sluicebox_stage_assets_size(&name, &size)) return;
    stage_typed_list_u8_t head = {0};
    sluicebox_stage_assets_read(&name, 0, 16, &head);
    bytes_t payload = {0};
    append_number(&payload, size, 8);
    append(&payload, head.ptr, head.len);
    stage_typed_list_u8_free(&head);
    emit(call, payload);
}

static void write_log(uint8_t level, view_t line_view) {
    string_t line = text(line_view);
    sluicebox_stage_log_write(level, &line);
}

static void count(view_t name_view) {
    string_t name = text(name_view);
    sluicebox_stage_metrics_count(&name, 1);
}

// What the command `M` was given in the life of the instance.
static bytes_t remembered;

static void remember(call_t *call, view_t operand) {
    append(&remembered, operand.at, operand.len);
    uint32_t sum = 0;
    for (size_t i = 0; i < remembered.len; i++) sum += remembered.at[i];
    bytes_t payload = {0};
    append_number(&payload, remembered.len, 4);
    append_number(&payload, sum, 4);
    emit(call, payload);
}

// Commands whose operand is free. False if it is not one of them.
static bool run_plain(call_t *call, uint8_t command, view_t operand) {
    switch (command) {
    case 'e': emit_view(call, operand); return true;
    case 'd': describe(call); return true;
    case 'f': emit_fields(call, operand); return true;
    case 'r': fail(call, SLUICEBOX_STAGE_TYPES_FAILURE_CLASS_RETRY, operand); return true;
    case 'x': fail(call, SLUICEBOX_STAGE_TYPES_FAILURE_CLASS_REJECT, operand); return true;
    case 't': trap();
    case 'g': get(call, operand); return true;
    case 'D': delete(call, operand); return true;
    case 'S': scan(call, operand); return true;
    case 'c': read_config(call, operand); return true;
    case 'A': read_asset(call, operand); return true;
    case 'm': count(operand); return true;
    case 'M': remember(call, operand); return true;
    case 'w': return true;
    default: return false;
    }
}

// Commands whose operand has a form. False if it is not one of them, or the operand has not got it.
static bool run_formed(call_t *call, uint8_t command, view_t operand) {
    view_t head, rest;
    uint32_t cause;
    switch (command) {
    case 'n':
        if (operand.len < 1) return false;
        emit_many(call, operand.at[0]);
        return true;
    case 'p':
        if (operand.len < 1) return false;
        emit_view(call, after(operand, 1))->port = operand.at[0];
        return true;
    case 'k':
        if (!split(operand, &head, &rest)) return false;
        emit_keyed(call, head, rest);
        return true;
    case 'u':
        if (operand.len < sizeof cause) return false;
        memcpy(&cause, operand.at, sizeof cause);
        emit_view(call, after(operand, sizeof cause))->cause = cause;
        return true;
    case 's':
        if (!split(operand, &head, &rest)) return false;
        put(call, head, rest);
        return true;
    case 'a':
        if (!split(operand, &head, &rest) || rest.len != sizeof(int64_t)) return false;
        add(call, head, rest);
        return true;
    case 'l':
        if (operand.len < 1 || operand.at[0] > SLUICEBOX_STAGE_LOG_LEVEL_ERROR) return false;
        write_log(operand.at[0], after(operand, 1));
        return true;
    default: return false;
    }
}

static void run(call_t *call) {
    view_t payload = {call->event->payload.ptr, call->event->payload.len};
    if (call->event->kind != SLUICEBOX_STAGE_TYPES_KIND_DATA) {
        describe(call);
        return;
    }
    if (payload.len > 0) {
        uint8_t command = payload.at[0];
        view_t operand = after(payload, 1);
        if (run_plain(call, command, operand) || run_formed(call, command, operand)) return;
    }
    reject_unknown(call);
}

void exports_stage_typed_handle(stage_typed_list_event_t *events, stage_typed_outcome_t *result) {
    memset(result, 0, sizeof *result);
    call_t call = {.result = result};
    for (size_t i = 0; i < events->len; i++) {
        call.index = (uint32_t)i;
        call.event = &events->ptr[i];
        run(&call);
    }
    stage_typed_list_event_free(events);
}
