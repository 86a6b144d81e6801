// Two ways to switch: a few lines of assembly on x86-64, in fiber.h, and ucontext, which every Unix
// has.  It is slower, since each switch is a call of the operating system.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <vector>

static std::vector<char*> spare;

// Stacks are at multiples of the page size.  If all began at their end, their tops would share a
// few sets of the processor's cache and evict each other; so each begins a little lower than the
// last.
static size_t staggered() {
    static size_t count = 0;
    return count++ % 61 * 192;
}

static void need_stack(Fiber& fiber) {
    fiber.bytes = STACK_BYTES - staggered();
    if (spare.empty())
        spare.push_back((char*)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    fiber.stack = spare.back();
    spare.pop_back();
}

#if defined(__x86_64__) && !defined(USE_UCONTEXT)

void begin_fiber(Fiber& fiber, void (*entry)()) {
    need_stack(fiber);
    void** top = (void**)(((uintptr_t)fiber.stack + fiber.bytes) & ~uintptr_t(15));
    *--top = nullptr;       // where entry() would return to: the stack is aligned as after a call
    *--top = (void*)entry;  // where switch_stack goes
    fiber.context = top;
}
void give_back(Fiber& fiber) {
    if (fiber.stack) spare.push_back(fiber.stack);
    fiber.stack = nullptr;
}

#else
#include <ucontext.h>

static ucontext_t scheduler;

void begin_fiber(Fiber& fiber, void (*entry)()) {
    need_stack(fiber);
    ucontext_t* context = new ucontext_t;
    getcontext(context);
    context->uc_stack.ss_sp = fiber.stack;
    context->uc_stack.ss_size = fiber.bytes;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    fiber.context = context;
}
void resume(Fiber& fiber) { swapcontext(&scheduler, (ucontext_t*)fiber.context); }
void leave(Fiber& fiber) { swapcontext((ucontext_t*)fiber.context, &scheduler); }
void give_back(Fiber& fiber) {
    if (fiber.stack) spare.push_back(fiber.stack);
    delete (ucontext_t*)fiber.context;
    fiber = Fiber{};
}
#endif
