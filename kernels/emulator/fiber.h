// Fibers: many threads of control in one, each with a stack of its own.
//
// A CUDA thread must be able to stop in the middle of its kernel, at a barrier, while the others come up to
// it.  A fiber can: it hands control back to the scheduler, and goes on later where it was.
#pragma once
#include <cstddef>

constexpr size_t STACK_BYTES = 128 << 10;

struct Fiber {
    void* context = nullptr;  // where it goes on
    char* stack = nullptr;
    size_t bytes = 0;  // of the stack that are used: see fiber.cpp
};

void begin_fiber(Fiber& fiber, void (*entry)());  // the first resume() runs entry()
void resume(Fiber& fiber);                        // run it until it calls leave()
void leave(Fiber& fiber);                         // back to who resumed it
void give_back(Fiber& fiber);                     // its stack may serve another
