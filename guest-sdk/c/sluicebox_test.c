// The host in memory. See sluicebox_test.h.
//
// - Everything it has is a list of pairs of names and bytes, small and in order: tests are.
// - It gives the stage memory of the call, as the real host does, and keeps copies of its own.

#ifndef __wasm__

#include "sluicebox_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sluicebox_host.h"

enum { HEADER = 16, HEAD = 32, NAME_MAX_BYTES = 64, TIMER_CALLS_MAX = 10000 };

static const uint64_t TIME_END = (uint64_t)1 << 53;

static _Noreturn void trap(const char *why) {
    fprintf(stderr, "trap: %s\n", why);
    exit(70);
}

static void *sized(void *old, size_t size) {
    void *at = realloc(old, size == 0 ? 1 : size);
    if (at == NULL) trap("no memory");
    return at;
}

static sb_bytes kept(sb_bytes bytes) {
    uint8_t *at = sized(NULL, bytes.len + 1);
    if (bytes.len > 0) memcpy(at, bytes.at, bytes.len);
    at[bytes.len] = 0;
    return (sb_bytes){at, bytes.len};
}

// Bytes for the stage, in memory of the call.
static sb_bytes lent(sb_bytes bytes) {
    uint8_t *at = sb_alloc(bytes.len);
    if (bytes.len > 0) memcpy(at, bytes.at, bytes.len);
    return (sb_bytes){at, bytes.len};
}

static int compare(sb_bytes a, sb_bytes b) {
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len == 0 ? 0 : memcmp(a.at, b.at, len);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

// ---- What it has, in the order of key and name ----

typedef struct {
    sb_bytes key, name, value;
    sb_clock clock; // of a timer
    uint64_t at;
} entry;

typedef struct {
    entry *at;
    size_t len;
} list;

static list slots, timers, config, assets, counts, lines;
static uint64_t clocks[2];
static size_t value_max = 1 << 20;

// Where an entry is, or belongs.
static size_t place_of(const list *in, sb_bytes key, sb_bytes name, bool *found) {
    for (size_t i = 0; i < in->len; i++) {
        int order = compare(in->at[i].key, key);
        if (order == 0) order = compare(in->at[i].name, name);
        if (order >= 0) {
            *found = order == 0;
            return i;
        }
    }
    *found = false;
    return in->len;
}

static entry *find(const list *in, sb_bytes key, sb_bytes name) {
    bool found;
    size_t place = place_of(in, key, name, &found);
    return found ? &in->at[place] : NULL;
}

static void drop(entry *old) {
    free((void *)old->key.at);
    free((void *)old->name.at);
    free((void *)old->value.at);
}

static entry *set(list *in, sb_bytes key, sb_bytes name, sb_bytes value) {
    bool found;
    size_t place = place_of(in, key, name, &found);
    entry new = {.key = kept(key), .name = kept(name), .value = kept(value)};
    if (found) {
        drop(&in->at[place]);
    } else {
        in->at = sized(in->at, (in->len + 1) * sizeof *in->at);
        memmove(&in->at[place + 1], &in->at[place], (in->len - place) * sizeof *in->at);
        in->len++;
    }
    in->at[place] = new;
    return &in->at[place];
}

static bool take(list *from, sb_bytes key, sb_bytes name) {
    bool found;
    size_t place = place_of(from, key, name, &found);
    if (!found) return false;
    drop(&from->at[place]);
    from->len--;
    memmove(&from->at[place], &from->at[place + 1], (from->len - place) * sizeof *from->at);
    return true;
}

static void clear(list *all) {
    for (size_t i = 0; i < all->len; i++) drop(&all->at[i]);
    free(all->at);
    *all = (list){0};
}

static list copy_of(const list *of) {
    list copy = {0};
    for (size_t i = 0; i < of->len; i++) {
        const entry *from = &of->at[i];
        entry *to = set(&copy, from->key, from->name, from->value);
        to->clock = from->clock;
        to->at = from->at;
    }
    return copy;
}

// ---- The events of a call, and what came of them ----

static sb_event *given; // copies
static size_t given_count;
static uint32_t *places; // of the events that the running call has
static size_t places_count;
static sbt_output *outputs;
static size_t outputs_count, frames_count;
static sbt_failure *failures;
static size_t failures_count;

static sb_bytes key_of(uint32_t event) {
    if (event >= places_count) trap("the call has no such event");
    return given[places[event]].key;
}

static uint64_t number(const uint8_t *at, size_t len) {
    uint64_t value = 0;
    memcpy(&value, at, len);
    return value;
}

void host_emit(sb_bytes frame) {
    frames_count++;
    const uint8_t *at = frame.at + HEADER;
    for (uint64_t left = number(frame.at + 8, 4); left > 0; left--) {
        uint32_t cause = (uint32_t)number(at + 12, 4);
        sb_bytes key = {at + HEAD, number(at + 10, 2)};
        sb_bytes payload = {key.at + key.len, number(at + 24, 4)};
        sb_bytes fields = {payload.at + payload.len, number(at + 28, 4)};
        sb_bytes inherited = key_of(cause);
        outputs = sized(outputs, (outputs_count + 1) * sizeof *outputs);
        outputs[outputs_count++] = (sbt_output){
            .port = (uint16_t)number(at + 8, 2),
            .cause = places[cause],
            .time = number(at + 16, 8),
            .key = kept(key.len == 0 ? inherited : key),
            .payload = kept(payload),
            .fields = kept(fields),
        };
        at += number(at, 4);
    }
}

static sb_bytes slot_of(sb_bytes slot) {
    if (slot.len > NAME_MAX_BYTES) trap("the name of a slot has at most 64 bytes");
    return slot;
}

bool host_get(uint32_t event, sb_bytes slot, sb_bytes *value) {
    const entry *found = find(&slots, key_of(event), slot_of(slot));
    if (found != NULL) *value = lent(found->value);
    return found != NULL;
}

bool host_put(uint32_t event, sb_bytes slot, sb_bytes value, sb_bytes *refusal) {
    if (value.len > value_max) {
        *refusal =
            sb_format("the value is %zu bytes long, the limit is %zu", value.len, value_max);
        return false;
    }
    set(&slots, key_of(event), slot_of(slot), value);
    return true;
}

bool host_delete(uint32_t event, sb_bytes slot) {
    return take(&slots, key_of(event), slot_of(slot));
}

bool host_add(uint32_t event, sb_bytes slot, int64_t delta, int64_t *sum, sb_bytes *refusal) {
    const entry *found = find(&slots, key_of(event), slot_of(slot));
    if (found != NULL && found->value.len != 8) {
        *refusal = sb_format("the slot holds %zu bytes, a counter has 8", found->value.len);
        return false;
    }
    uint64_t before = found == NULL ? 0 : number(found->value.at, 8);
    *sum = (int64_t)(before + (uint64_t)delta);
    set(&slots, key_of(event), slot, (sb_bytes){(const uint8_t *)sum, 8});
    return true;
}

size_t host_scan(uint32_t event, sb_bytes prefix, uint32_t limit, sb_entry **entries) {
    sb_bytes key = key_of(event);
    size_t count = 0;
    *entries = sb_alloc(slots.len * sizeof **entries);
    for (size_t i = 0; i < slots.len && count < limit; i++) {
        const entry *slot = &slots.at[i];
        sb_bytes head = {slot->name.at, prefix.len};
        if (!sb_equal(slot->key, key) || slot->name.len < prefix.len) continue;
        if (sb_equal(head, prefix)) {
            (*entries)[count++] = (sb_entry){lent(slot->name), lent(slot->value)};
        }
    }
    return count;
}

// One operation of a batch; gives what the reply says.
static sb_status operate(const uint8_t *at, sb_bytes name, sb_bytes value, sb_bytes *reply) {
    uint32_t event = (uint32_t)number(at + 4, 4);
    int64_t *sum;
    switch (at[0]) {
    case 1: return host_get(event, name, reply) ? SB_DONE : SB_ABSENT;
    case 2: return host_put(event, name, value, reply) ? SB_DONE : SB_REFUSED;
    case 3: return host_delete(event, name) ? SB_DONE : SB_ABSENT;
    case 4:
        sum = sb_alloc(sizeof *sum);
        if (!host_add(event, name, (int64_t)number(value.at, 8), sum, reply)) return SB_REFUSED;
        *reply = (sb_bytes){(const uint8_t *)sum, sizeof *sum};
        return SB_DONE;
    case 5: {
        uint64_t time = number(value.at + 1, 8);
        bool done = host_set_timer(event, name, (sb_clock)value.at[0], time, reply);
        return done ? SB_DONE : SB_REFUSED;
    }
    case 6: return host_cancel_timer(event, name) ? SB_DONE : SB_ABSENT;
    default: trap("there is no such operation");
    }
}

sb_bytes host_batch(sb_bytes operations) {
    uint8_t *replies = NULL;
    size_t len = 0;
    const uint8_t *at = operations.at, *end = operations.at + operations.len;
    while (at < end) {
        sb_bytes name = {at + 16, at[1]}, value = {name.at + name.len, number(at + 8, 4)};
        sb_bytes reply = {0};
        sb_status status = operate(at, name, value, &reply);
        replies = sized(replies, len + 8 + reply.len);
        memset(replies + len, 0, 8);
        replies[len] = (uint8_t)status;
        memcpy(replies + len + 4, &reply.len, 4);
        if (reply.len > 0) memcpy(replies + len + 8, reply.at, reply.len);
        len += 8 + reply.len;
        at = value.at + value.len;
    }
    sb_bytes all = lent((sb_bytes){replies, len});
    free(replies);
    return all;
}

bool host_set_timer(uint32_t event, sb_bytes name, sb_clock clock, uint64_t at,
                    sb_bytes *refusal) {
    if (name.len > NAME_MAX_BYTES) {
        *refusal = sb_str("the name of a timer has at most 64 bytes");
        return false;
    }
    if (at >= TIME_END) {
        unsigned long long time = at;
        *refusal = sb_format("the time of a timer is below 2^53, not %llu", time);
        return false;
    }
    entry *timer = set(&timers, key_of(event), name, (sb_bytes){0});
    timer->clock = clock;
    timer->at = at;
    return true;
}

bool host_cancel_timer(uint32_t event, sb_bytes name) {
    return take(&timers, key_of(event), name);
}

uint64_t host_watermark(void) { return clocks[SB_EVENT_TIME]; }

uint64_t host_now(void) { return clocks[SB_WALL]; }

bool host_config(sb_bytes name, sb_bytes *value) {
    const entry *found = find(&config, (sb_bytes){0}, name);
    if (found != NULL) *value = lent(found->value);
    return found != NULL;
}

size_t host_config_names(sb_bytes **names) {
    *names = sb_alloc(config.len * sizeof **names);
    for (size_t i = 0; i < config.len; i++) (*names)[i] = lent(config.at[i].name);
    return config.len;
}

bool host_asset_size(sb_bytes name, uint64_t *size) {
    const entry *found = find(&assets, (sb_bytes){0}, name);
    if (found != NULL) *size = found->value.len;
    return found != NULL;
}

sb_bytes host_asset(sb_bytes name, uint64_t offset, uint32_t len) {
    const entry *found = find(&assets, (sb_bytes){0}, name);
    if (found == NULL || offset >= found->value.len) return (sb_bytes){0};
    size_t left = found->value.len - (size_t)offset;
    return lent((sb_bytes){found->value.at + offset, left < len ? left : len});
}

void host_log(sb_level level, sb_bytes line) {
    (void)level;
    // Lines are numbered by their names, so that they stay in order.
    char name[24];
    snprintf(name, sizeof name, "%020zu", lines.len);
    set(&lines, (sb_bytes){0}, sb_str(name), line);
}

void host_count(sb_bytes name, uint64_t delta) {
    const entry *found = find(&counts, (sb_bytes){0}, name);
    uint64_t sum = delta + (found == NULL ? 0 : number(found->value.at, 8));
    set(&counts, (sb_bytes){0}, name, (sb_bytes){(const uint8_t *)&sum, 8});
}

void host_gauge(sb_bytes name, double value) {
    set(&counts, (sb_bytes){0}, name, (sb_bytes){(const uint8_t *)&value, 8});
}

// ---- Calls ----

void sbt_event(sb_event event) {
    given = sized(given, (given_count + 1) * sizeof *given);
    event.key = kept(event.key);
    event.payload = kept(event.payload);
    event.fields = kept(event.fields);
    given[given_count++] = event;
}

void sbt_data(const char *key, const char *payload) {
    sbt_event((sb_event){.key = sb_str(key), .payload = sb_str(payload)});
}

static void put(uint8_t *at, uint64_t value, size_t len) { memcpy(at, &value, len); }

static size_t size_of(const sb_event *event) {
    return HEAD + event->key.len + event->payload.len + event->fields.len;
}

static void pack(uint8_t *at, const sb_event *event) {
    memset(at, 0, HEAD);
    put(at, size_of(event), 4);
    put(at + 4, event->kind, 1);
    put(at + 6, event->input, 2);
    put(at + 8, event->port, 2);
    put(at + 10, event->key.len, 2);
    put(at + 12, UINT32_MAX, 4);
    put(at + 16, event->time, 8);
    put(at + 24, event->payload.len, 4);
    put(at + 28, event->fields.len, 4);
    at += HEAD;
    const sb_bytes parts[] = {event->key, event->payload, event->fields};
    for (size_t i = 0; i < 3; i++) {
        memcpy(at, parts[i].at, parts[i].len);
        at += parts[i].len;
    }
}

static void forget_outputs(size_t from) {
    for (size_t i = from; i < outputs_count; i++) {
        free((void *)outputs[i].key.at);
        free((void *)outputs[i].payload.at);
        free((void *)outputs[i].fields.at);
    }
    outputs_count = from;
}

// Runs the events in `places` once. True if some failed, and so the others are to be run again.
static bool run(void) {
    size_t len = HEADER;
    for (size_t i = 0; i < places_count; i++) len += size_of(&given[places[i]]);
    uint8_t *frame = sb_alloc(len), *at = frame + HEADER;
    memcpy(frame, "SBXF\1\0\1\0", 8);
    put(frame + 8, places_count, 4);
    put(frame + 12, len, 4);
    for (size_t i = 0; i < places_count; i++) {
        pack(at, &given[places[i]]);
        at += size_of(&given[places[i]]);
    }
    const sb_failed *failed;
    size_t count = sb_handle((sb_bytes){frame, len}, &failed);
    for (size_t i = 0; i < count; i++) {
        if (failed[i].event >= places_count) trap("the call has no event that could fail so");
        failures = sized(failures, (failures_count + 1) * sizeof *failures);
        char *message = (char *)kept((sb_bytes){failed[i].message, failed[i].len}).at;
        uint32_t place = places[failed[i].event];
        failures[failures_count++] = (sbt_failure){place, failed[i].retry, message};
    }
    sb_end_call();
    return count > 0;
}

static bool has_failed(uint32_t place) {
    for (size_t i = 0; i < failures_count; i++) {
        if (failures[i].event == place) return true;
    }
    return false;
}

static void forget_results(void) {
    forget_outputs(0);
    frames_count = 0;
    for (size_t i = 0; i < failures_count; i++) free(failures[i].message);
    failures_count = 0;
}

// Runs what was given, again and again without what failed.
static void run_given(size_t from) {
    places = sized(places, given_count * sizeof *places);
    places_count = 0;
    for (size_t i = from; i < given_count; i++) places[places_count++] = (uint32_t)i;
    size_t kept_outputs = outputs_count;
    while (places_count > 0) {
        list slots_before = copy_of(&slots), timers_before = copy_of(&timers);
        bool again = run();
        if (again) {
            clear(&slots);
            clear(&timers);
            slots = slots_before;
            timers = timers_before;
            forget_outputs(kept_outputs);
        } else {
            clear(&slots_before);
            clear(&timers_before);
            return;
        }
        size_t left = 0;
        for (size_t i = 0; i < places_count; i++) {
            if (!has_failed(places[i])) places[left++] = places[i];
        }
        places_count = left;
    }
}

static void forget_given(void) {
    for (size_t i = 0; i < given_count; i++) {
        free((void *)given[i].key.at);
        free((void *)given[i].payload.at);
        free((void *)given[i].fields.at);
    }
    given_count = 0;
}

void sbt_call(void) {
    forget_results();
    run_given(0);
    forget_given();
}

// Takes the timer that is due first; false if none is.
static bool take_due(sb_clock clock) {
    const entry *due = NULL;
    for (size_t i = 0; i < timers.len; i++) {
        const entry *timer = &timers.at[i];
        if (timer->clock != clock || timer->at > clocks[clock]) continue;
        if (due == NULL || timer->at < due->at) due = timer;
    }
    if (due == NULL) return false;
    sbt_event((sb_event){
        .kind = SB_TIMER, .time = due->at, .key = due->key, .payload = due->name});
    take(&timers, given[given_count - 1].key, given[given_count - 1].payload);
    return true;
}

void sbt_advance(sb_clock clock, uint64_t to) {
    forget_results();
    if (to > clocks[clock]) clocks[clock] = to;
    for (int calls = 0; calls < TIMER_CALLS_MAX; calls++) {
        size_t from = given_count;
        while (given_count - from < 256 && take_due(clock)) continue;
        if (given_count == from) {
            forget_given();
            return;
        }
        run_given(from);
    }
    trap("the stage keeps setting timers for a time that has come");
}

size_t sbt_output_count(void) { return outputs_count; }

const sbt_output *sbt_output_at(size_t index) {
    return index < outputs_count ? &outputs[index] : NULL;
}

size_t sbt_frame_count(void) { return frames_count; }

size_t sbt_failure_count(void) { return failures_count; }

const sbt_failure *sbt_failure_at(size_t index) {
    return index < failures_count ? &failures[index] : NULL;
}

void sbt_set_config(const char *name, const char *value) {
    set(&config, (sb_bytes){0}, sb_str(name), sb_str(value));
}

void sbt_set_asset(const char *name, sb_bytes bytes) {
    set(&assets, (sb_bytes){0}, sb_str(name), bytes);
}

void sbt_set_state(const char *key, const char *slot, sb_bytes value) {
    set(&slots, sb_str(key), sb_str(slot), value);
}

void sbt_set_value_max(size_t bytes) { value_max = bytes; }

bool sbt_state(const char *key, const char *slot, sb_bytes *value) {
    const entry *found = find(&slots, sb_str(key), sb_str(slot));
    if (found != NULL) *value = found->value;
    return found != NULL;
}

int64_t sbt_counter(const char *key, const char *slot) {
    sb_bytes value;
    if (!sbt_state(key, slot, &value) || value.len != 8) return 0;
    return (int64_t)number(value.at, 8);
}

size_t sbt_timer_count(const char *key) {
    size_t count = 0;
    for (size_t i = 0; i < timers.len; i++) count += sb_equal(timers.at[i].key, sb_str(key));
    return count;
}

size_t sbt_line_count(void) { return lines.len; }

const char *sbt_line_at(size_t index) {
    return index < lines.len ? (const char *)lines.at[index].value.at : NULL;
}

uint64_t sbt_count(const char *metric) {
    const entry *found = find(&counts, (sb_bytes){0}, sb_str(metric));
    return found == NULL ? 0 : number(found->value.at, 8);
}

void sbt_reset(void) {
    forget_results();
    forget_given();
    list *all[] = {&slots, &timers, &config, &assets, &counts, &lines};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) clear(all[i]);
    clocks[0] = clocks[1] = 0;
    value_max = 1 << 20;
}

// ---- Checks ----

static int wrong;

void sbt_check(bool holds, const char *what, const char *file, int line) {
    if (holds) return;
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    wrong++;
}

void sbt_check_text(size_t output, const char *text, const char *file, int line) {
    const sbt_output *found = sbt_output_at(output);
    if (found != NULL && sb_equal(found->payload, sb_str(text))) return;
    const char *is = found == NULL ? "nothing" : (const char *)found->payload.at;
    fprintf(stderr, "%s:%d: output %zu is %s, and should be %s\n", file, line, output, is, text);
    wrong++;
}

int sbt_done(void) {
    if (wrong > 0) fprintf(stderr, "%d checks failed\n", wrong);
    return wrong > 0;
}

#endif
