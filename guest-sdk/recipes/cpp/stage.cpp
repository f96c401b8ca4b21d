// Emits each text in capitals, and how many its key had.

#include <cctype>
#include <string>

#include "sluicebox.h"

static void upper(const sb_event *event) {
    if (event->kind != SB_DATA) return;
    std::string text(reinterpret_cast<const char *>(event->payload.at), event->payload.len);
    for (char &letter : text) letter = static_cast<char>(std::toupper(letter));
    int64_t seen = 0;
    if (!sb_add(event, "seen", 1, &seen)) {
        sb_fail(event, false, sb_refusal());
        return;
    }
    text += ' ' + std::to_string(seen);
    sb_emit(event, {reinterpret_cast<const uint8_t *>(text.data()), text.size()});
}

SB_STAGE(upper);
