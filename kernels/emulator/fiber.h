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
void give_back(Fiber& fiber);                     // let another fiber have its stack

#if defined(__x86_64__) && !defined(USE_UCONTEXT)

inline void* scheduler;  // where the caller of resume() continues

// Continue at `load`; whoever loads `*save` continues after this line.
//
// A processor expects each `ret` to lead behind the latest `call`, and loses time if it does not.
// So a switch is a jump, and inlined: where threads stop at one line, what each returns to is what
// the processor expects.  With a call and a `ret`, a turn of a thread takes a third longer.
inline __attribute__((always_inline)) void switch_stack(void** save, void* load) {
    asm volatile("lea -128(%%rsp), %%rsp\n"  // a function may use 128 bytes below its stack
                 "push %%rbp\n"
                 "lea 1f(%%rip), %%rax\n"
                 "push %%rax\n"
                 "mov %%rsp, (%%rdi)\n"
                 "mov %%rsi, %%rsp\n"
                 "pop %%rax\n"
                 "jmp *%%rax\n"
                 "1: pop %%rbp\n"
                 "lea 128(%%rsp), %%rsp\n"
                 : "+D"(save), "+S"(load)
                 :
                 : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                   "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                   "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
}

// Run a fiber until it calls leave().
inline __attribute__((always_inline)) void resume(Fiber& fiber) {
    switch_stack(&scheduler, fiber.context);
}
// Return to the caller of resume().
inline __attribute__((always_inline)) void leave(Fiber& fiber) {
    switch_stack(&fiber.context, scheduler);
}

#else
void resume(Fiber& fiber);  // run it until it calls leave()
void leave(Fiber& fiber);   // return to the caller of resume()
#endif
