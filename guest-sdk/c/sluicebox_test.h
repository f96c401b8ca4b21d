// A host in memory, for unit tests of a stage in C: compile the stage, sluicebox.c and
// sluicebox_test.c natively, with a main function of your own.
//
//     int main(void) {
//         sbt_data("key", "hello");
//         sbt_call();
//         SBT_TEXT(0, "HELLO");
//         return sbt_done();
//     }
//
// It does what a node does with a call: an event without a key gets that of its cause; of a call
// in which events fail nothing stands, and the others are run again without them; timers fire when
// the test moves time. What a node ends a call for ends the test. It knows no manifest: no retries, no
// dead letters, no limits but the largest value of a slot.

#ifndef SLUICEBOX_TEST_H
#define SLUICEBOX_TEST_H

#include "sluicebox.h"

// An event that the stage emitted.
typedef struct sbt_output {
    uint16_t port;
    uint32_t cause; // place among the events that were given
    uint64_t time;
    sb_bytes key, payload, fields;
} sbt_output;

// An event that failed.
typedef struct sbt_failure {
    uint32_t event;
    bool retry;
    char *message;
} sbt_failure;

// Adds an event to those of the next call; the payload is a C string.
void sbt_data(const char *key, const char *payload);
// Adds any event. What it points to is copied; its index does not matter.
void sbt_event(sb_event event);
// Gives the stage what was added. Outputs and failures are those of this call.
void sbt_call(void);
// Moves a clock, and gives the stage every timer that is due.
void sbt_advance(sb_clock clock, uint64_t to);

size_t sbt_output_count(void);
const sbt_output *sbt_output_at(size_t index); // NULL: there are fewer
size_t sbt_frame_count(void); // in which the outputs came
size_t sbt_failure_count(void);
const sbt_failure *sbt_failure_at(size_t index); // NULL: there are fewer

void sbt_set_config(const char *name, const char *value);
void sbt_set_asset(const char *name, sb_bytes bytes);
void sbt_set_state(const char *key, const char *slot, sb_bytes value);
void sbt_set_value_max(size_t bytes); // it is 1 MiB
bool sbt_state(const char *key, const char *slot, sb_bytes *value);
int64_t sbt_counter(const char *key, const char *slot); // 0: there is none
size_t sbt_timer_count(const char *key);
size_t sbt_line_count(void);
const char *sbt_line_at(size_t index); // NULL: there are fewer
uint64_t sbt_count(const char *metric);
// Forgets everything.
void sbt_reset(void);

// Says what is wrong, with file and line, if `holds` is not so.
void sbt_check(bool holds, const char *what, const char *file, int line);
void sbt_check_text(size_t output, const char *text, const char *file, int line);
#define SBT_CHECK(condition) sbt_check((condition), #condition, __FILE__, __LINE__)
#define SBT_TEXT(output, text) sbt_check_text((output), (text), __FILE__, __LINE__)
// The exit code: 0 if every check held.
int sbt_done(void);

#endif
