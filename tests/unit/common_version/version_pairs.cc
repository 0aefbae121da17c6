// Compares the pairs on standard input, one "scheme<TAB>a<TAB>b" a line, and prints -1, 0, 1 or
// "none" for each: for the tests that hold our order of versions against the package managers'.
#include <cstdio>
#include <iostream>
#include <map>
#include <string>

#include "common/version/version.h"

int main() {
  const std::map<std::string, bunker::VersionScheme> schemes = {
      {"debian", bunker::VersionScheme::kDebian},
      {"rpm", bunker::VersionScheme::kRpm},
      {"pep440", bunker::VersionScheme::kPep440},
      {"semver", bunker::VersionScheme::kSemver},
      {"apk", bunker::VersionScheme::kApk}};
  std::string line;
  while (std::getline(std::cin, line)) {
    const size_t first = line.find('\t');
    const size_t second = line.find('\t', first + 1);
    const auto scheme = schemes.find(line.substr(0, first));
    if (second == std::string::npos || scheme == schemes.end()) return 2;
    const auto order = bunker::CompareVersions(
        scheme->second, line.substr(first + 1, second - first - 1), line.substr(second + 1));
    std::puts(!order ? "none" : *order < 0 ? "-1" : *order > 0 ? "1" : "0");
  }
  return 0;
}
