// Fibers: many threads of control in one, each with a stack of its own.
//
// A CUDA thread must be able to stop in the middle of its kernel, at a barrier, until the others
// get there.  A fiber can: it returns control to the scheduler, and later continues where it was.
#pragma once
#include <cstddef>

constexpr size_t STACK_BYTES = 128 << 10;

struct Fiber {
    void* context = nullptr;  // where it continues
    char* stack = nullptr;
    size_t bytes = 0;  // of the stack that it uses: see fiber.cpp
};

void begin_fiber(Fiber& fiber, void (*entry)());  // the first resume() runs entry()
void resume(Fiber& fiber);                        // run it until it calls leave()
void leave(Fiber& fiber);                         // return to the caller of resume()
void give_back(Fiber& fiber);                     // let another fiber have its stack
