// The types of a kernel's parameters, for a caller that passes bare addresses.
//
// A tag is p for a pointer, P for one to const, then the kind of number and its bytes: f4, i8, u4,
// or v2 for a structure of two bytes, which is a 16-bit floating-point number.
#pragma once
#include <string>
#include <type_traits>
#include <utility>

#include "thread.h"

template <class T> std::string tag_of() {
    if constexpr (std::is_pointer_v<T>) {
        using To = std::remove_pointer_t<T>;
        return (std::is_const_v<To> ? "P" : "p") + tag_of<std::remove_const_t<To>>();
    } else {
        const char kind = std::is_floating_point_v<T> ? 'f'
                          : std::is_unsigned_v<T>     ? 'u'
                          : std::is_integral_v<T>     ? 'i'
                                                      : 'v';
        return kind + std::to_string(sizeof(T));
    }
}
template <class... Ps> UNWATCHED const char* signature_of(void (*)(Ps...)) {
    static const std::string all = ((tag_of<Ps>() + " ") + ... + std::string());
    return all.c_str();
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
        static const Kernel kernel = {&call_##name, signature_of(&name), __start_shared_##name,    \
                                      __stop_shared_##name, bound};                                \
        return &kernel;                                                                            \
    }
