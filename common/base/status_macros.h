// The two macros with which every fallible call in this project is chained.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define BUNKER_CONCAT_INNER(a, b) a##b
#define BUNKER_CONCAT(a, b) BUNKER_CONCAT_INNER(a, b)

// Returns from the enclosing function if `expr` (an absl::Status) is not OK.
#define RETURN_IF_ERROR(expr)                                   \
  do {                                                          \
    if (absl::Status bunker_status = (expr); !bunker_status.ok()) \
      return bunker_status;                                     \
  } while (false)

// ASSIGN_OR_RETURN(auto x, F()): `x` is the value, or the error is returned.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_INNER(BUNKER_CONCAT(bunker_or_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                           \
  if (!tmp.ok()) return std::move(tmp).status(); \
  lhs = *std::move(tmp)
