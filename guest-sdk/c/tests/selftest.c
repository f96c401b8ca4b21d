// Tests of the SDK for C with the host in memory, and an example of tests of a stage. Built and
// run by tests/languages.rs.

#include <string.h>

#include "sluicebox_test.h"

static sb_bytes after(sb_bytes bytes, size_t len) {
    return (sb_bytes){bytes.at + len, bytes.len - len};
}

static void count(const sb_event *event, sb_bytes name) {
    int64_t sum;
    if (sb_add(event, sb_text(name), 1, &sum)) {
        sb_emitf(event, "%s=%lld", sb_text(name), (long long)sum);
    } else {
        sb_fail(event, true, sb_refusal());
    }
}

static void batch(const sb_event *event) {
    sb_batch batch = {0};
    sb_batch_add(&batch, event, "n", 2);
    sb_batch_put(&batch, event, "s", sb_str("value"));
    sb_batch_get(&batch, event, "s");
    sb_batch_delete(&batch, event, "none");
    sb_batch_set_timer(&batch, event, "t", SB_WALL, 50);
    sb_batch_cancel_timer(&batch, event, "none");
    sb_batch_run(&batch);
    long long sum = sb_batch_next(&batch).number;
    sb_batch_next(&batch);
    char *value = sb_text(sb_batch_next(&batch).value);
    sb_status deleted = sb_batch_next(&batch).status, set = sb_batch_next(&batch).status;
    sb_emitf(event, "%lld %s %d %d %d", sum, value, deleted, set, sb_batch_next(&batch).status);
}

static void scan(const sb_event *event) {
    sb_entry *entries;
    size_t found = sb_scan(event, "a", 2, &entries);
    for (size_t i = 0; i < found; i++) sb_emit(event, entries[i].slot);
}

static void send_field(const sb_event *event) {
    sb_draft draft = {.port = 3, .time = 9, .key = sb_str("own"), .payload = sb_str("p")};
    sb_bytes type = {0};
    sb_field(event, SB_CONTENT_TYPE, &type);
    sb_add_field(&draft, SB_OWN_FIELD, sb_str("own"));
    sb_add_field(&draft, SB_CONTENT_TYPE, type);
    sb_send(event, draft);
}

static void run(const sb_event *event) {
    if (sb_is_timer(event, "t")) sb_emitf(event, "fired at %d", (int)event->time);
    if (event->kind != SB_DATA || event->payload.len == 0) return;
    sb_bytes operand = after(event->payload, 1), value = {0};
    static uint8_t large[200000];
    switch (event->payload.at[0]) {
    case 'e': sb_emit(event, operand); break;
    case 'a': count(event, operand); break;
    case 'x':
        sb_fail(event, false, operand);
        sb_retry(event, "a second time");
        break;
    case 'b': batch(event); break;
    case 'S': scan(event); break;
    case 'f': send_field(event); break;
    case 't': SBT_CHECK(sb_set_timer(event, "t", SB_EVENT_TIME, 30)); break;
    case 'L': sb_emit(event, (sb_bytes){large, sizeof large}); break;
    case 'K': sb_send(event, (sb_draft){.key = {large, 513}}); break;
    case 'c':
        if (sb_config("name", &value)) sb_logf(SB_INFO, "%s %zu", sb_text(value), value.len);
        sb_emit(event, sb_asset("table", 1, 2));
        sb_count("seen", 3);
        break;
    case 'p':
        if (!sb_put(event, "s", operand)) sb_fail(event, false, sb_refusal());
        break;
    }
}

SB_STAGE(run);

static void send(const char *payload) {
    sbt_data("k", payload);
    sbt_call();
}

static void events_fail_alone(void) {
    int64_t before = 5;
    sbt_set_state("k", "n", (sb_bytes){(uint8_t *)&before, sizeof before});
    sbt_data("k", "an");
    sbt_data("k", "xno");
    sbt_data("other", "an");
    sbt_data("k", "an");
    sbt_call();
    SBT_TEXT(0, "n=6");
    SBT_TEXT(1, "n=1");
    SBT_TEXT(2, "n=7");
    SBT_CHECK(sbt_output_count() == 3);
    SBT_CHECK(sbt_output_at(2)->cause == 3);
    SBT_CHECK(sbt_failure_count() == 1);
    SBT_CHECK(sbt_failure_at(0)->event == 1 && !sbt_failure_at(0)->retry);
    SBT_CHECK(strcmp(sbt_failure_at(0)->message, "no") == 0);
    SBT_CHECK(sbt_counter("k", "n") == 7);
}

static void state_is_kept(void) {
    sb_bytes value;
    send("pvalue");
    SBT_CHECK(sbt_state("k", "s", &value) && sb_equal(value, sb_str("value")));
    send("as");
    SBT_CHECK(sbt_failure_at(0) != NULL && sbt_failure_at(0)->retry);
    sbt_set_value_max(2);
    send("pvalue");
    SBT_CHECK(sbt_failure_count() == 1);
    sbt_set_state("k", "a2", sb_str(""));
    sbt_set_state("k", "a1", sb_str(""));
    sbt_set_state("k", "a3", sb_str(""));
    send("S");
    SBT_TEXT(0, "a1");
    SBT_TEXT(1, "a2");
    SBT_CHECK(sbt_output_count() == 2);
    sbt_reset();
    send("b");
    SBT_TEXT(0, "2 value 1 0 1");
}

static void timers_fire(void) {
    sbt_advance(SB_WALL, 49);
    SBT_CHECK(sbt_output_count() == 0);
    sbt_advance(SB_WALL, 50);
    SBT_TEXT(0, "fired at 50");
    send("t");
    SBT_CHECK(sbt_timer_count("k") == 1);
    sbt_advance(SB_EVENT_TIME, 100);
    SBT_TEXT(0, "fired at 30");
    sbt_advance(SB_EVENT_TIME, 100);
    SBT_CHECK(sbt_output_count() == 0);
}

static void what_is_emitted_arrives(void) {
    uint8_t fields[] = {9, 0, 1, 0, 'x', 2, 1, 4, 0, 't', 'e', 'x', 't'};
    sb_event event = {.key = sb_str("k"), .time = 7, .payload = sb_str("f")};
    event.fields = (sb_bytes){fields, sizeof fields};
    sbt_event(event);
    sbt_data("k", "e");
    sbt_call();
    const sbt_output *out = sbt_output_at(0);
    SBT_CHECK(out->port == 3 && out->time == 9 && sb_equal(out->key, sb_str("own")));
    SBT_CHECK(out->fields.len == 15 && memcmp(out->fields.at + 7, fields + 5, 8) == 0);
    SBT_CHECK(sb_equal(sbt_output_at(1)->key, sb_str("k")) && sbt_output_at(1)->payload.len == 0);
    for (int i = 0; i < 5; i++) sbt_data("k", "L");
    sbt_call();
    SBT_CHECK(sbt_output_count() == 5 && sbt_output_at(4)->payload.len == 200000);
    SBT_CHECK(sbt_frame_count() == 5);
    send("K");
    SBT_CHECK(sbt_failure_count() == 1 && sbt_output_count() == 0);
}

static void the_rest(void) {
    sbt_set_config("name", "value");
    sbt_set_asset("table", sb_str("abcd"));
    send("c");
    SBT_TEXT(0, "bc");
    SBT_CHECK(sbt_line_count() == 1 && strcmp(sbt_line_at(0), "value 5") == 0);
    SBT_CHECK(sbt_count("seen") == 3);
}

int main(void) {
    events_fail_alone();
    state_is_kept();
    timers_fire();
    what_is_emitted_arrives();
    the_rest();
    return sbt_done();
}
