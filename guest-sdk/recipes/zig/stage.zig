//! Emits each text in capitals, and how many its key had.

const std = @import("std");
const c = @import("sluicebox.zig");

fn upper(event: [*c]const c.sb_event) callconv(.c) void {
    if (event.*.kind != c.SB_DATA) return;
    var seen: i64 = 0;
    if (!c.sb_add(event, "seen", 1, &seen)) {
        c.sb_fail(event, false, c.sb_refusal());
        return;
    }
    const payload = event.*.payload;
    const text: [*]u8 = @ptrCast(c.sb_alloc(payload.len + 24));
    for (payload.at[0..payload.len], 0..) |letter, i| text[i] = std.ascii.toUpper(letter);
    const rest = text[payload.len .. payload.len + 24];
    const count = std.fmt.bufPrint(rest, " {d}", .{seen}) catch unreachable;
    c.sb_emit(event, .{ .at = text, .len = payload.len + count.len });
}

export const sb_the_stage: c.sb_stage = .{ .each = upper };
