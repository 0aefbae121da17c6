#include "common/sbom/ecosystem.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

namespace bunker {
namespace {

using scan::v1::Distribution;
using scan::v1::Package;

std::string Major(const std::string& version) {
  return version.substr(0, version.find('.'));
}

std::string MajorMinor(const std::string& version) {
  const size_t first = version.find('.');
  return first == version.npos ? version : version.substr(0, version.find('.', first + 1));
}

struct Named {
  const char* id;    // of os-release
  const char* name;  // of OSV
  std::string (*release)(const std::string& version_id);
};

std::string NoRelease(const std::string&) {
  return "";
}
std::string Whole(const std::string& version) {
  return ":" + version;
}
std::string OfMajor(const std::string& version) {
  return ":" + Major(version);
}
std::string OfAlpine(const std::string& version) {
  return ":v" + MajorMinor(version);
}
std::string OfLeap(const std::string& version) {
  return ":Leap " + version;
}
std::string OfRedHat(const std::string& version) {
  return ":enterprise_linux:" + Major(version);
}

constexpr Named kDistributions[] = {
    {"debian", "Debian", &OfMajor},           {"ubuntu", "Ubuntu", &Whole},
    {"alpine", "Alpine", &OfAlpine},          {"wolfi", "Wolfi", &NoRelease},
    {"chainguard", "Chainguard", &NoRelease}, {"rocky", "Rocky Linux", &OfMajor},
    {"almalinux", "AlmaLinux", &OfMajor},     {"rhel", "Red Hat", &OfRedHat},
    {"opensuse-leap", "openSUSE", &OfLeap},   {"openEuler", "openEuler", &Whole},
};

std::string Encoded(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '-' || c == '_' || c == '~' || c == ':';
    if (plain) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

using Qualifiers = std::vector<std::pair<std::string, std::string>>;

std::string Joined(Qualifiers qualifiers) {
  std::sort(qualifiers.begin(), qualifiers.end());
  std::string out;
  for (const auto& [key, value] : qualifiers) {
    if (!value.empty()) out += (out.empty() ? "?" : "&") + key + "=" + Encoded(value);
  }
  return out;
}

std::string Upstream(const Package& package) {
  if (package.source_name().empty()) return "";
  if (package.source_version().empty() || package.source_version() == package.version())
    return package.source_name() == package.name() ? "" : package.source_name();
  return package.source_name() + "@" + package.source_version();
}

std::string DistributionPurl(const char* type, const Distribution& distribution,
                             const Package& package) {
  Qualifiers qualifiers = {{"arch", package.arch()}, {"upstream", Upstream(package)}};
  if (!distribution.id().empty())
    qualifiers.emplace_back("distro", distribution.id() + "-" + distribution.version_id());
  std::string version = package.version();
  if (package.kind() == Package::RPM) {
    if (const size_t colon = version.find(':'); colon != version.npos) {
      qualifiers.emplace_back("epoch", version.substr(0, colon));
      version = version.substr(colon + 1);
    }
  }
  const std::string space = distribution.id().empty() ? "" : Encoded(distribution.id()) + "/";
  return std::string("pkg:") + type + "/" + space + Encoded(package.name()) + "@" +
         Encoded(version) + Joined(std::move(qualifiers));
}

}  // namespace

VersionScheme SchemeOf(Package::Kind kind) {
  switch (kind) {
    case Package::APK:
      return VersionScheme::kApk;
    case Package::RPM:
      return VersionScheme::kRpm;
    case Package::PYPI:
      return VersionScheme::kPep440;
    case Package::NPM:
      return VersionScheme::kSemver;
    default:
      return VersionScheme::kDebian;
  }
}

std::string EcosystemOf(const Distribution& distribution, Package::Kind kind) {
  if (kind == Package::PYPI) return "PyPI";
  if (kind == Package::NPM) return "npm";
  for (const Named& named : kDistributions) {
    if (distribution.id() == named.id) return named.name + named.release(distribution.version_id());
  }
  if (distribution.id().empty()) return "unknown";
  return distribution.version_id().empty() ? distribution.id()
                                           : distribution.id() + ":" + distribution.version_id();
}

AdvisoryName AdvisoryNameOf(const Package& package) {
  switch (package.kind()) {
    case Package::DEB:
    case Package::APK:
      return {package.source_name().empty() ? package.name() : package.source_name(),
              package.source_version().empty() ? package.version() : package.source_version()};
    case Package::PYPI:
      return {NormalPythonName(package.name()), package.version()};
    default:
      return {package.name(), package.version()};
  }
}

std::string NormalPythonName(const std::string& name) {
  std::string out;
  for (const char c : name) {
    if (c == '-' || c == '_' || c == '.') {
      if (out.empty() || out.back() != '-') out += '-';
    } else {
      out += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
  }
  return out;
}

std::string PurlOf(const Distribution& distribution, const Package& package) {
  switch (package.kind()) {
    case Package::APK:
      return DistributionPurl("apk", distribution, package);
    case Package::RPM:
      return DistributionPurl("rpm", distribution, package);
    case Package::PYPI:
      return "pkg:pypi/" + Encoded(NormalPythonName(package.name())) + "@" +
             Encoded(package.version());
    case Package::NPM: {
      const size_t slash = package.name().find('/');
      const std::string name = package.name()[0] == '@' && slash != std::string::npos
                                   ? Encoded(package.name().substr(0, slash)) + "/" +
                                         Encoded(package.name().substr(slash + 1))
                                   : Encoded(package.name());
      return "pkg:npm/" + name + "@" + Encoded(package.version());
    }
    default:
      return DistributionPurl("deb", distribution, package);
  }
}

}  // namespace bunker
