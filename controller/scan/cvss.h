// Base scores of CVSS vectors, as first.org's specifications compute them.
//
// Thread-safe: free functions without state.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace bunker::controller {

// 0.0…10.0 of a vector of version 2.0, 3.0 or 3.1. Nothing where it is no whole base vector, or one
// of version 4: that is a table of expert judgement, for which the database's own rating stands in.
std::optional<double> CvssBaseScore(std::string_view vector);

// critical | high | medium | low | none.
std::string SeverityOfScore(double score);

// The word that a database rates with (in any case: "MODERATE", "important", "unimportant", …) as
// one of the contract's: critical | high | medium | low | none | unknown.
std::string SeverityOfWord(std::string_view word);

}  // namespace bunker::controller
