// Atomic operations.  Only one thread runs at a time here, so they are a plain read and a plain
// write, which the memory checks see as one atomic access.
#pragma once
#include <type_traits>

#include "thread.h"

template <class T, class Change> UNWATCHED T atomically(T* p, Change change) {
    touched(p, sizeof(T), 1, 1, __builtin_return_address(0));
    const T old = *p;
    *p = change(old);
    return old;
}
template <class T> struct Same {  // keeps a constant's type from deciding T
    using type = T;
};
template <class T> using Value = typename Same<T>::type;

template <class T> T atomicAdd(T* p, Value<T> v) {
    return atomically(p, [v](T old) { return old + v; });
}
template <class T> T atomicMax(T* p, Value<T> v) {
    return atomically(p, [v](T old) { return old > v ? old : v; });
}
template <class T> T atomicMin(T* p, Value<T> v) {
    return atomically(p, [v](T old) { return old < v ? old : v; });
}
template <class T> T atomicExch(T* p, Value<T> v) {
    return atomically(p, [v](T) { return v; });
}
template <class T> T atomicCAS(T* p, Value<T> expected, Value<T> v) {
    return atomically(p, [expected, v](T old) { return old == expected ? v : old; });
}
