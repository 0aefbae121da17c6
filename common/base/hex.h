// Lower-case hexadecimal.
#pragma once

#include <string>
#include <string_view>

namespace bunker {

std::string HexEncode(std::string_view bytes);

// False where `hex` has odd length or a character outside [0-9a-f].
bool HexDecode(std::string_view hex, std::string* bytes);

}  // namespace bunker
