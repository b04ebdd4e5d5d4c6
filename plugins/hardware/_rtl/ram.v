// A RAM with one write port and one registered read port: what FPGA block RAM is.
// A word read in the same cycle in which it is written is the old one; no user relies on that.
// What it holds at power-up comes from a file where PRELOADED is set; a RAM that nobody writes is then a ROM. The file is
// INIT, or INIT with four digits of NUMBER and `.hex` behind it.
// STYLE is Vivado's (auto, block, distributed), STYLE_INTEL Quartus's (M20K, MLAB; empty leaves it open).
module ram #(
    parameter WIDTH = 16,
    parameter DEPTH_BITS = 8,
    parameter WORDS = 1 << DEPTH_BITS,
    parameter PRELOADED = 0,
    parameter INIT = "",
    parameter integer NUMBER = -1,
    parameter STYLE = "auto",
    parameter STYLE_INTEL = ""
) (
    input wire clk,
    input wire write,
    input wire [DEPTH_BITS-1:0] write_address,
    input wire [WIDTH-1:0] write_data,
    input wire read,
    input wire [DEPTH_BITS-1:0] read_address,
    output reg [WIDTH-1:0] read_data
);
  (* ram_style = STYLE, ramstyle = STYLE_INTEL *)
  reg [WIDTH-1:0] words[0:WORDS-1];

  generate
    if (PRELOADED != 0 && NUMBER < 0) begin : preloaded
      initial $readmemh(INIT, words);
    end else if (PRELOADED != 0) begin : numbered
      // As digits, since no tool for synthesis formats a number.
      localparam integer THOUSANDS = 48 + NUMBER / 1000 % 10;
      localparam integer HUNDREDS = 48 + NUMBER / 100 % 10;
      localparam integer TENS = 48 + NUMBER / 10 % 10;
      localparam integer ONES = 48 + NUMBER % 10;
      initial $readmemh({INIT, THOUSANDS[7:0], HUNDREDS[7:0], TENS[7:0], ONES[7:0], ".hex"}, words);
    end
  endgenerate

  always @(posedge clk) begin
    if (write) words[write_address] <= write_data;
    if (read) read_data <= words[read_address];
  end
endmodule
