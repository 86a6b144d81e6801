// The types of a kernel's parameters, for a caller that passes bare addresses.
//
// A tag is p for a pointer, P for one to const, then the kind of number and its bytes: f4, i8, u4,
// or v2 for a structure of two bytes, which is a 16-bit floating-point number.
#pragma once
#include <type_traits>
#include <utility>

#include "thread.h"

// The tags of all parameters, a space after each.  The compiler writes them: no code is left.
template <size_t N> struct Tags {
    char text[N + 1] = {};
    size_t length = 0;

    constexpr void add(char c) { text[length++] = c; }
    constexpr void add_number(size_t n) {
        if (n >= 10) add_number(n / 10);
        add(char('0' + n % 10));
    }
    template <class T> constexpr void add_tag() {
        if constexpr (std::is_pointer_v<T>) {
            using To = std::remove_pointer_t<T>;
            add(std::is_const_v<To> ? 'P' : 'p');
            add_tag<std::remove_const_t<To>>();
        } else {
            add(std::is_floating_point_v<T> ? 'f'
                : std::is_unsigned_v<T>     ? 'u'
                : std::is_integral_v<T>     ? 'i'
                                            : 'v');
            add_number(sizeof(T));
        }
    }
};
template <class... Ps> constexpr auto tags_of(void (*)(Ps...)) {
    Tags<8 * sizeof...(Ps)> tags;
    ((tags.template add_tag<Ps>(), tags.add(' ')), ...);
    return tags;
}
template <class... Ps, size_t... I>
UNWATCHED void apply(void (*kernel)(Ps...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<Ps>*>(arguments[I])...);
}
template <class... Ps> UNWATCHED void call_kernel(void (*kernel)(Ps...), void** arguments) {
    apply(kernel, arguments, std::index_sequence_for<Ps...>{});
}

#ifdef COUNT_LINES
// Write the counts of all lines that have run so far to a file.
extern "C" void __gcov_dump();
extern "C" void __gcov_reset();
extern "C" __attribute__((visibility("default"))) void write_counts() {
    __gcov_dump();
    __gcov_reset();
}
#endif

// After the kernel's text, once for each kernel.
#define EXPORT_KERNEL(name, bound)                                                                 \
    extern "C" char __start_shared_##name[] __attribute__((weak, visibility("hidden")));           \
    extern "C" char __stop_shared_##name[] __attribute__((weak, visibility("hidden")));            \
    UNWATCHED static void call_##name(void** arguments) { call_kernel(&name, arguments); }         \
    extern "C" __attribute__((visibility("default"))) UNWATCHED const Kernel* kernel_##name() {    \
        static constexpr auto tags = tags_of(&name);                                               \
        static const Kernel kernel = {&call_##name, tags.text, __start_shared_##name,              \
                                      __stop_shared_##name, bound};                                \
        return &kernel;                                                                            \
    }
