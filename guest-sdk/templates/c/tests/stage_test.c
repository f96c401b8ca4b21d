// Tests of the stage, without a node. To build and run them:
//
//     cc -I .sluicebox/sdk/c -o build/test stage.c tests/*.c .sluicebox/sdk/c/*.c && build/test

#include "sluicebox_test.h"

int main(void) {
    sbt_data("ada", "first");
    sbt_data("ada", "second");
    sbt_call();
    SBT_TEXT(0, "{\"greeting\": \"hello\", \"count\": 1}");
    SBT_TEXT(1, "{\"greeting\": \"hello\", \"count\": 2}");
    return sbt_done();
}
