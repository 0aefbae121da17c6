#include "controller/scan/cvss.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <utility>

namespace bunker::controller {
namespace {

constexpr size_t kMaxVectorBytes = 512;

using Metrics = std::map<std::string, std::string, std::less<>>;

// "AV:N/AC:L/…"; nothing where a part has no value or comes twice.
std::optional<Metrics> Split(std::string_view text) {
  if (text.size() > kMaxVectorBytes) return std::nullopt;
  Metrics metrics;
  while (!text.empty()) {
    const size_t slash = std::min(text.find('/'), text.size());
    const std::string_view part = text.substr(0, slash);
    text.remove_prefix(std::min(slash + 1, text.size()));
    const size_t colon = part.find(':');
    if (colon == part.npos || colon == 0 || colon + 1 == part.size()) return std::nullopt;
    if (!metrics.emplace(part.substr(0, colon), part.substr(colon + 1)).second) return std::nullopt;
  }
  return metrics;
}

struct Weight {
  const char* value;
  double weight;
};

template <size_t kCount>
std::optional<double> WeightOf(const Metrics& metrics, std::string_view name,
                               const Weight (&weights)[kCount]) {
  const auto it = metrics.find(name);
  if (it == metrics.end()) return std::nullopt;
  for (const Weight& one : weights) {
    if (it->second == one.value) return one.weight;
  }
  return std::nullopt;
}

// Up to the next tenth, of whole numbers so that floating point can't add one.
double RoundUp(double value) {
  const auto scaled = static_cast<int64_t>(std::round(value * 100000));
  if (scaled % 10000 == 0) return static_cast<double>(scaled) / 100000;
  return (std::floor(static_cast<double>(scaled) / 10000) + 1) / 10;
}

std::optional<double> ScoreV3(const Metrics& metrics) {
  constexpr Weight kVector[] = {{"N", 0.85}, {"A", 0.62}, {"L", 0.55}, {"P", 0.2}};
  constexpr Weight kComplexity[] = {{"L", 0.77}, {"H", 0.44}};
  constexpr Weight kPrivileges[] = {{"N", 0.85}, {"L", 0.62}, {"H", 0.27}};
  constexpr Weight kPrivilegesChanged[] = {{"N", 0.85}, {"L", 0.68}, {"H", 0.5}};
  constexpr Weight kInteraction[] = {{"N", 0.85}, {"R", 0.62}};
  constexpr Weight kImpact[] = {{"H", 0.56}, {"L", 0.22}, {"N", 0}};
  constexpr Weight kScope[] = {{"U", 0}, {"C", 1}};
  const auto scope = WeightOf(metrics, "S", kScope);
  if (!scope) return std::nullopt;
  const bool changed = *scope > 0;
  const auto vector = WeightOf(metrics, "AV", kVector);
  const auto complexity = WeightOf(metrics, "AC", kComplexity);
  const auto privileges =
      changed ? WeightOf(metrics, "PR", kPrivilegesChanged) : WeightOf(metrics, "PR", kPrivileges);
  const auto interaction = WeightOf(metrics, "UI", kInteraction);
  const auto secrecy = WeightOf(metrics, "C", kImpact);
  const auto integrity = WeightOf(metrics, "I", kImpact);
  const auto availability = WeightOf(metrics, "A", kImpact);
  if (!vector || !complexity || !privileges || !interaction || !secrecy || !integrity ||
      !availability) {
    return std::nullopt;
  }
  const double base = 1 - (1 - *secrecy) * (1 - *integrity) * (1 - *availability);
  const double impact =
      changed ? 7.52 * (base - 0.029) - 3.25 * std::pow(base - 0.02, 15) : 6.42 * base;
  if (impact <= 0) return 0;
  const double exploitability = 8.22 * *vector * *complexity * *privileges * *interaction;
  return RoundUp(std::min((changed ? 1.08 : 1) * (impact + exploitability), 10.0));
}

std::optional<double> ScoreV2(const Metrics& metrics) {
  constexpr Weight kVector[] = {{"L", 0.395}, {"A", 0.646}, {"N", 1}};
  constexpr Weight kComplexity[] = {{"H", 0.35}, {"M", 0.61}, {"L", 0.71}};
  constexpr Weight kAuthentication[] = {{"M", 0.45}, {"S", 0.56}, {"N", 0.704}};
  constexpr Weight kImpact[] = {{"N", 0}, {"P", 0.275}, {"C", 0.66}};
  const auto vector = WeightOf(metrics, "AV", kVector);
  const auto complexity = WeightOf(metrics, "AC", kComplexity);
  const auto authentication = WeightOf(metrics, "Au", kAuthentication);
  const auto secrecy = WeightOf(metrics, "C", kImpact);
  const auto integrity = WeightOf(metrics, "I", kImpact);
  const auto availability = WeightOf(metrics, "A", kImpact);
  if (!vector || !complexity || !authentication || !secrecy || !integrity || !availability)
    return std::nullopt;
  const double impact = 10.41 * (1 - (1 - *secrecy) * (1 - *integrity) * (1 - *availability));
  const double exploitability = 20 * *vector * *complexity * *authentication;
  const double factor = impact == 0 ? 0 : 1.176;
  return std::round((0.6 * impact + 0.4 * exploitability - 1.5) * factor * 10) / 10;
}

}  // namespace

std::optional<double> CvssBaseScore(std::string_view vector) {
  if (!vector.empty() && vector.front() == '(' && vector.back() == ')')
    vector = vector.substr(1, vector.size() - 2);
  const std::optional<Metrics> metrics = Split(vector);
  if (!metrics) return std::nullopt;
  const auto version = metrics->find("CVSS");
  if (version == metrics->end()) return ScoreV2(*metrics);
  if (version->second == "3.0" || version->second == "3.1") return ScoreV3(*metrics);
  return std::nullopt;
}

std::string SeverityOfScore(double score) {
  if (score >= 9.0) return "critical";
  if (score >= 7.0) return "high";
  if (score >= 4.0) return "medium";
  return score > 0 ? "low" : "none";
}

std::string SeverityOfWord(std::string_view word) {
  std::string lower(word.substr(0, 64));
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  constexpr std::pair<const char*, const char*> kWords[] = {
      {"critical", "critical"}, {"high", "high"}, {"important", "high"}, {"medium", "medium"},
      {"moderate", "medium"},   {"low", "low"},   {"minor", "low"},      {"negligible", "low"},
      {"unimportant", "low"},   {"none", "none"}};
  for (const auto& [known, severity] : kWords) {
    if (lower == known) return severity;
  }
  return "unknown";
}

}  // namespace bunker::controller
