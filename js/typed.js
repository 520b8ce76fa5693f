/** A typed text with the signs of a Chinese or Japanese keyboard as those of a Latin one, as vdot_core/text.py reads them. */
export function typed(text) {
  const narrow = (sign) => String.fromCharCode(sign.charCodeAt(0) - 0xfee0)
  return String(text).replace(/[\uff01-\uff5e]/g, narrow).replace(/\u3001/g, ",").replace(/\u3000/g, " ")
}
