// sluicebox: stages in C. See README.md beside this file for a stage in ten lines.
//
// - A stage is one function, named once by SB_STAGE or SB_STAGE_ALL. What it is given and what it
//   gets from the host is valid until it returns, and freed by nobody: the memory is the call's.
// - Names (slots, timers, settings) are C strings; payloads and values are bytes.
// - What the host refuses is an answer: a function that can be refused returns false, and
//   sb_refusal() says why. What breaks the rules (an index that does not exist, a port that the
//   manifest does not declare) ends the call, and with it the instance.
// - Static variables are the memory of the instance: with scope "stream" that of one stream, else
//   a cache. What must last is state.
//
// The same header compiles natively, with sluicebox_test.c as the host; see sluicebox_test.h.

#ifndef SLUICEBOX_H
#define SLUICEBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Bytes somewhere in memory.
typedef struct sb_bytes {
    const uint8_t *at;
    size_t len;
} sb_bytes;

// Why an event is here.
typedef enum sb_kind {
    SB_DATA = 0,  // something a producer sent or a stage emitted
    SB_TIMER = 1, // a wake-up that the key asked for; the payload is the timer's name
    SB_OPEN = 2,  // a stream begins (scope "stream")
    SB_END = 3,   // the stream ends
} sb_kind;

// One event. Times are microseconds since 1970, below 2^53.
typedef struct sb_event {
    uint32_t index; // its place in the call; the host knows it by that
    sb_kind kind;
    uint16_t input; // which input of the stage it arrived at, in the order of the manifest
    uint16_t port;  // which port it left the stage before by
    uint64_t time;
    sb_bytes key;
    sb_bytes payload;
    sb_bytes fields; // packed extension fields; see sb_field
} sb_event;

// Ids of extension fields. Those from SB_OWN_FIELD on are for stages' own use.
enum {
    SB_EVENT_ID = 256,
    SB_EVENT_SOURCE = 257,
    SB_CONTENT_TYPE = 258,
    SB_EVENT_TYPE = 259,
    SB_EVENT_SUBJECT = 260,
    SB_OWN_FIELD = 32768,
};

// The value of a field of an event; false if it has none with this id.
bool sb_field(const sb_event *event, uint16_t id, sb_bytes *value);

// ---- The stage ----

// What a stage is: one of the two.
typedef struct sb_stage {
    void (*each)(const sb_event *event);
    void (*all)(const sb_event *events, size_t count);
} sb_stage;

extern const sb_stage sb_the_stage;

// Has `function` called once for each event.
#define SB_STAGE(function) const sb_stage sb_the_stage = {(function), 0}
// Has `function` called once for all events of a call, at most 256.
#define SB_STAGE_ALL(function) const sb_stage sb_the_stage = {0, (function)}

// ---- Memory of the call ----

// Memory until the stage's function returns. Never NULL: an instance without memory ends.
void *sb_alloc(size_t len);

// Bytes of a C string.
sb_bytes sb_str(const char *text);

// A C string with these bytes, in memory of the call; it ends at the first zero byte.
char *sb_text(sb_bytes bytes);

// Text put together as by printf, in memory of the call.
sb_bytes sb_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

bool sb_equal(sb_bytes a, sb_bytes b);

// ---- Emitting ----

// What differs from a plain event is said:
//
//     sb_send(event, (sb_draft){.port = 1, .payload = bytes});
typedef struct sb_draft {
    sb_bytes payload;
    uint16_t port; // counted from 0 in the order of the manifest
    uint64_t time; // 0: that of the cause
    sb_bytes key;  // takes effect on edges with key = "emitted"; empty: that of the cause
    sb_bytes fields; // see sb_add_field
} sb_draft;

// Emits an event whose cause is `event`. One that no frame can carry (a key over 512 bytes, fields
// over 16 KiB, a payload over 15 MiB, a time from 2^53 on) is not emitted, and `event` fails.
void sb_send(const sb_event *event, sb_draft draft);

// Emits a payload on port 0 with the time and key of `event`.
void sb_emit(const sb_event *event, sb_bytes payload);
void sb_emit_text(const sb_event *event, const char *payload);
void sb_emitf(const sb_event *event, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// Adds an extension field to those of a draft. A value over 65,535 bytes is not added: false.
bool sb_add_field(sb_draft *draft, uint16_t id, sb_bytes value);

// ---- Failing ----

// Says that the event cannot be handled. Nothing that was emitted or written for it stands. The
// first failure of an event counts.
void sb_reject(const sb_event *event, const char *message);
// The same, where trying again may help.
void sb_retry(const sb_event *event, const char *message);
// The same with any bytes of UTF-8 as message.
void sb_fail(const sb_event *event, bool retry, sb_bytes message);

// Ends the call and the instance: for what must never happen. The text is in the stage's log.
void sb_panic(const char *message) __attribute__((noreturn));

// ---- State of the event's key, in slots with names of at most 64 bytes ----

bool sb_get(const sb_event *event, const char *slot, sb_bytes *value); // false: absent
bool sb_put(const sb_event *event, const char *slot, sb_bytes value);  // false: refused
bool sb_delete(const sb_event *event, const char *slot);               // false: absent
// Adds to a counter; `sum`, where it is not NULL, is its new number. False: refused.
bool sb_add(const sb_event *event, const char *slot, int64_t delta, int64_t *sum);

typedef struct sb_entry {
    sb_bytes slot, value;
} sb_entry;

// The slots that begin with `prefix`, in byte order, at most `limit`. Gives how many there are.
size_t sb_scan(const sb_event *event, const char *prefix, uint32_t limit, sb_entry **entries);

// Why the last sb_put, sb_add or sb_set_timer was refused.
sb_bytes sb_refusal(void);

// Many operations in one call of the host: fill, run, then take a reply for each, in order.
//
//     sb_batch batch = {0};
//     for (size_t i = 0; i < count; i++) sb_batch_add(&batch, &events[i], "count", 1);
//     sb_batch_run(&batch);
//     for (size_t i = 0; i < count; i++) ... sb_batch_next(&batch).number ...
typedef struct sb_batch {
    uint8_t *at;
    size_t len, room;
    sb_bytes replies;
} sb_batch;

typedef enum sb_clock {
    SB_EVENT_TIME = 0, // the watermark
    SB_WALL = 1,       // the time of day
} sb_clock;

typedef enum sb_status {
    SB_DONE = 0,
    SB_ABSENT = 1,  // get, delete, cancel: there is none
    SB_REFUSED = 2, // the value is a message
} sb_status;

typedef struct sb_reply {
    sb_status status;
    sb_bytes value; // get: the value
    int64_t number; // add: the new number
} sb_reply;

void sb_batch_get(sb_batch *batch, const sb_event *event, const char *slot);
void sb_batch_put(sb_batch *batch, const sb_event *event, const char *slot, sb_bytes value);
void sb_batch_delete(sb_batch *batch, const sb_event *event, const char *slot);
void sb_batch_add(sb_batch *batch, const sb_event *event, const char *slot, int64_t delta);
void sb_batch_set_timer(sb_batch *batch, const sb_event *event, const char *name, sb_clock clock,
                        uint64_t at);
void sb_batch_cancel_timer(sb_batch *batch, const sb_event *event, const char *name);
void sb_batch_run(sb_batch *batch);
// The next reply. Behind the last one the instance ends.
sb_reply sb_batch_next(sb_batch *batch);

// ---- Timers of the event's key ----

bool sb_set_timer(const sb_event *event, const char *name, sb_clock clock, uint64_t at);
bool sb_cancel_timer(const sb_event *event, const char *name); // false: there was none
// True if the event is this timer.
bool sb_is_timer(const sb_event *event, const char *name);
// The event time up to which everything is here; 0 if it is not known.
uint64_t sb_watermark(void);
// The time of day, the same for all of a call.
uint64_t sb_now(void);

// ---- The rest ----

bool sb_config(const char *name, sb_bytes *value);
size_t sb_config_names(sb_bytes **names);
bool sb_asset_size(const char *name, uint64_t *size);
sb_bytes sb_asset(const char *name, uint64_t offset, uint32_t len);

typedef enum sb_level { SB_DEBUG, SB_INFO, SB_WARN, SB_ERROR } sb_level;
void sb_log(sb_level level, sb_bytes line);
void sb_logf(sb_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sb_count(const char *metric, uint64_t delta);
void sb_gauge(const char *metric, double value);

#ifdef __cplusplus
}
#endif

#endif
